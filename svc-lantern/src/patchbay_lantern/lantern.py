"""The lantern itself: connects to a server, obeys, and shows itself. It needs no broker.

Source: the seed. It puts whole commands together from any split of bytes, ignores types that it
does not know in silence, tries again every second when the connection breaks, and closes it
properly at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

from patchbay.sockets import find_dead
from patchbay_lantern.commands import COMMANDS, Light, Registry
from patchbay_lantern.messages import Order
from patchbay_lantern.wire.tlv import Decoder

RETRY_S: Final = 1.0
"""The seed's: "клиент с периодичностью в 1 секунду начнет пытаться сединяться с сервером"."""

CONNECT_S: Final = 5.0
"""How long one try may take: a host that swallows packets would hold us for minutes."""

DEAD_AFTER_S: Final = 45
"""A server that has vanished without a word is found within so long."""

READ_SIZE: Final = 65_536
ENDED: Final = "the server closed the connection"


class View(Protocol):
    """Where the lantern shows itself."""

    def obeyed(self, order: Order, light: Light) -> None:
        """A command was obeyed; this is how it shines now."""

    def connected(self, address: str) -> None:
        """It is connected."""

    def cut_off(self, address: str, why: str) -> None:
        """It is not, and tries again. Said once until it is connected again."""


class Lantern:
    """A lantern that obeys the server at ``host:port``."""

    def __init__(
        self,
        host: str,
        port: int,
        view: View,
        registry: Registry = COMMANDS,
        retry_s: float = RETRY_S,
    ) -> None:
        self.light = Light()
        self._host = host
        self._port = port
        self._view = view
        self._registry = registry
        self._retry_s = retry_s
        self._said = ""

    @property
    def address(self) -> str:
        """``host:port``, as it was given."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def run(self) -> None:
        """Connect and obey, again and again, until cancelled."""
        while True:
            why = await self._live()
            if why != self._said:
                self._said = why
                self._view.cut_off(self.address, why)
            await asyncio.sleep(self._retry_s)

    async def _live(self) -> str:
        """One connection from its beginning to its end. Returns why it ended."""
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return error.strerror or str(error)
        try:
            find_dead(writer.get_extra_info("socket"), DEAD_AFTER_S)
            self._said = ""
            self._view.connected(self.address)
            decoder = Decoder()
            while data := await reader.read(READ_SIZE):
                for frame in decoder.feed(data):
                    order = self._registry.unpack(frame.type, frame.value)
                    if order is not None:
                        self._obey(order)
            return ENDED
        except OSError as error:
            return error.strerror or str(error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _obey(self, order: Order) -> None:
        self.light = self._registry.obey(self.light, order)
        self._view.obeyed(order, self.light)
