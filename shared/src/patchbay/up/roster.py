"""Who is online, as the bus says: units and devices by their retained statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import msgspec

from patchbay.bus import Bus, Message
from patchbay.messages import UnitInfo, decode, new_id

ONLINE = "online"
OFFLINE = "offline"

_SETTLE_TIMEOUT_S = 5.0

_info = msgspec.json.Decoder(UnitInfo)


MAX_DEVICES: Final = 10_000
"""Devices that are shown: as many as a service knows. Anybody on the bus may make up more."""

SHOWN_CHARS: Final = 40


class Roster:
    """Follows the retained statuses on a bus that has not been started yet.

    Of these units (instance ids), and of at most ``max_devices`` devices: others may be made up.
    """

    def __init__(
        self, bus: Bus, instances: Collection[str], max_devices: int = MAX_DEVICES
    ) -> None:
        self.devices: dict[tuple[str, str], str] = {}
        """(service, device) -> online or offline."""
        self._instances = frozenset(instances)
        self._max_devices = max_devices
        self._bus = bus
        self._statuses: dict[str, str] = {}
        self._pids: dict[str, int] = {}
        self._nonce = b""
        self._returned = asyncio.Event()
        topics = bus.topics
        bus.listen(topics.unit_status("+"), self._unit_said)
        bus.listen(topics.unit_info("+"), self._unit_told)
        if max_devices:
            bus.listen(topics.status("+", "+"), self._device_said)
        bus.listen(topics.reply(bus.client_id), self._came_back)

    def status(self, instance: str, pid: int) -> str:
        """A unit's status. What another process said of this instance does not count: a broker
        that was killed may keep an ``online`` that nobody is there to take back."""
        if pid <= 0 or self._pids.get(instance) != pid:
            return OFFLINE
        return self._statuses.get(instance, OFFLINE)

    async def settle(self) -> None:
        """Wait until all that was retained is here: what we send ourselves comes after it.

        Raises TimeoutError, and Unavailable if the connection ends meanwhile.
        """
        async with asyncio.timeout(_SETTLE_TIMEOUT_S):
            await self._bus.wait_connected()
            await self.echo()

    async def echo(self) -> None:
        """Send ourselves a message, and wait until it is here: so the broker works.

        Raises Unavailable without a connection.
        """
        self._nonce = new_id().encode()
        self._returned.clear()
        await self._bus.publish(self._bus.topics.reply(self._bus.client_id), self._nonce)
        await self._returned.wait()

    def _unit_said(self, message: Message) -> None:
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if instance in self._instances:
            self._statuses[instance] = _shown(message)

    def _unit_told(self, message: Message) -> None:
        message.ack()
        instance = message.topic.split("/")[-2]
        if instance not in self._instances:
            return
        try:
            self._pids[instance] = decode(_info, message.payload).pid
        except msgspec.DecodeError:
            self._pids.pop(instance, None)

    def _device_said(self, message: Message) -> None:
        message.ack()
        address = self._bus.topics.address(message.topic)
        if address is None:
            return
        device = (address.service, address.device)
        if not message.payload:
            self.devices.pop(device, None)
        elif device in self.devices or len(self.devices) < self._max_devices:
            self.devices[device] = _shown(message)

    def _came_back(self, message: Message) -> None:
        message.ack()
        if message.payload == self._nonce:
            self._returned.set()


def _shown(message: Message) -> str:
    return message.payload[:SHOWN_CHARS].decode("utf-8", "replace")
