"""``forget``: clear what a unit has left behind that is gone for good."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from patchbay.cli.options import ConfigOption, StateOption

if TYPE_CHECKING:
    from patchbay.bus import Bus, Message

_ONLINE = b"online"
_FAILURE = 0x80
_TIMEOUT_S = 5.0


class _Removed(msgspec.Struct):
    removed: bool = False


def forget(
    unit: Annotated[
        str, typer.Argument(metavar="UNIT", help="The instance id, such as locker-edge-pi1.")
    ],
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also if it is online, which a broker that was killed may say."
        ),
    ] = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Forget a unit that is gone for good: clear its retained messages, and what its domain stores
    of its progress.

    Refused while the unit is online. Devices are forgotten by the commands of their services. If
    the unit comes back, it is a new one, and delivers what it had not sent.
    """
    import asyncio

    from patchbay import log
    from patchbay.cli.bus import make_bus
    from patchbay.cli.printable import echo

    log.configure("error")
    make = partial(make_bus, "forget", state, config)
    for line in asyncio.run(forget_unit(make(), make(), unit, force=force)):
        echo(line)


async def forget_unit(looking: Bus, bus: Bus, unit: str, *, force: bool = False) -> list[str]:
    """Forget a unit, with two buses that were not started: one looks, the other acts. Returns what
    was removed, a line each.

    Raises Rejected if the unit is online or unknown, or if we may not; Unavailable without a
    broker, or a domain that answers.
    """
    from patchbay.cli.client import connected
    from patchbay.errors import Rejected
    from patchbay.messages import is_level

    if not is_level(unit):
        raise Rejected("bad_request", "UNIT must be an instance id, such as locker-edge-pi1")
    async with looking:
        await connected(looking, _TIMEOUT_S)
        retained = await _retained(looking, unit)
    async with bus:
        await connected(bus, _TIMEOUT_S)
        if retained.get(bus.topics.unit_status(unit)) == _ONLINE and not force:
            raise Rejected("unit_online", f"{unit} is online: stop it first")
        lines = []
        if await _forget_progress(bus, unit):
            lines.append("progress of its events in the store")
        for topic in sorted(retained):
            code = await bus.publish(topic, b"", retain=True)
            if code >= _FAILURE:
                raise Rejected("not_allowed", f"the broker does not let us clear {topic}")
            lines.append(topic)
        if not lines:
            raise Rejected("no_such_unit", f"nothing is known of {unit}")
        return lines


async def _retained(bus: Bus, unit: str) -> dict[str, bytes]:
    """What the broker retains of a unit, by topic."""
    import asyncio

    from patchbay.messages import new_id

    found: dict[str, bytes] = {}
    nonce, returned = new_id().encode(), asyncio.Event()
    own = bus.topics.reply(bus.client_id)

    def take(message: Message) -> None:
        message.ack()
        if message.topic == own and message.payload == nonce:
            returned.set()
        elif message.retain and message.payload:
            found[message.topic] = message.payload

    # What we send ourselves on the last of them comes behind all that was retained.
    patterns = [f"{pattern}/#" for pattern in bus.topics.of_unit(unit)]
    for subscription in [bus.listen(one, take) for one in (*patterns, own)]:
        if subscription.adding is not None:
            await subscription.adding
    await bus.publish(own, nonce)
    async with asyncio.timeout(_TIMEOUT_S):
        await returned.wait()
    return found


async def _forget_progress(bus: Bus, unit: str) -> bool:
    """Have the domain of its service forget how far the unit has come."""
    from patchbay.access.rights import unit_of
    from patchbay.cli.client import answered
    from patchbay.errors import SettingsError, Unavailable
    from patchbay.messages import ForgetUnit, encode
    from patchbay.services import discover

    with contextlib.suppress(SettingsError):  # an invented name: no domain knows it
        service, _ = unit_of(unit, discover())
        topic = bus.topics.forget(service.name)
        try:
            payload = await bus.request(
                topic, encode(ForgetUnit(unit=unit)), timeout_s=_TIMEOUT_S, expiry_s=5
            )
        except (TimeoutError, Unavailable) as error:
            raise Unavailable(
                f"no answer from the {service.name} domain (is it running?)"
            ) from error
        return msgspec.convert(answered(service.name, payload), _Removed).removed
    return False
