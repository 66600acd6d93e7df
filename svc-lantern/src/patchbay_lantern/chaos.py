"""A switcher and a lantern for ``patchbay chaos``: a colour that was refused is never shown."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp

from patchbay.chaos.load import Load, Surroundings, Tally
from patchbay.store import Store
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.wire.tlv import Decoder

COLOR = 0x20
INTERVAL_S = 0.4
RETRY_S = 0.3
ANSWER_S = 20.0
REMEMBERED = 60
"""The last commands of ours, of which those that were accepted have to be in the history: it has
room for 100."""


class Switcher(Load):
    """A program that sets one colour after the other over HTTP, and a lantern that shows them.

    Each colour is another, so what a lantern gets names the request.
    """

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        settings = around.config.table("lantern", LanternSettings)
        self._url = f"http://127.0.0.1:{around.config.port(settings.api_port)}/"
        self._port = around.config.port(settings.port)
        self._outcomes: dict[str, str] = {}
        """Colour -> accepted, refused or unknown, in the order of the requests."""
        self._shown: list[tuple[int, str]] = []
        """The connection and the colour of all that the lantern got."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._be_a_lantern())
            group.create_task(self._switch())

    async def _switch(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not self.quiet.is_set():
                color = f"{len(self._outcomes) + 1:06x}"
                self._outcomes[color] = await self._set(session, color)
                await self.pause(INTERVAL_S)

    async def _set(self, session: aiohttp.ClientSession, color: str) -> str:
        body = {"method": "message", "params": {"command": "COLOR", "value": color}}
        try:
            async with session.post(self._url, json=body) as response:
                await response.read()
                if response.status == 200:
                    return "accepted"
                return "unknown" if response.status == 504 else "refused"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return "unknown"

    async def _be_a_lantern(self) -> None:
        connection = 0
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            connection += 1
            decoder = Decoder()
            try:
                while data := await reader.read(4096):
                    for frame in decoder.feed(data):
                        if frame.type == COLOR:
                            self._shown.append((connection, frame.value.hex()))
            except OSError:
                pass
            finally:
                writer.transport.abort()
            await asyncio.sleep(RETRY_S)

    async def tally(self, store: Store) -> Tally:
        counts = Counter(self._outcomes.values())
        tally = Tally(counts["accepted"], counts["refused"], counts["unknown"])
        found = await store.find("lanterns", {"_id": "all"})
        history = [str(one["value"]) for one in found[0]["history"]] if found else []
        last = list(self._outcomes)[-REMEMBERED:]
        accepted = [color for color in last if self._outcomes[color] == "accepted"]
        tally.lost += [color for color in accepted if color not in history]
        shown = [color for _, color in self._shown]
        if accepted and history and history[-1] not in shown[-1:]:
            tally.lost.append(f"the lantern shows {shown[-1:]}, the state is {history[-1]}")
        tally.doubled += [color for color, times in Counter(history).items() if times > 1]
        refused = {color for color, outcome in self._outcomes.items() if outcome == "refused"}
        tally.late += [f"{color}: shown" for color in sorted(refused.intersection(shown))]
        tally.late += [f"{color}: stored" for color in sorted(refused.intersection(history))]
        rev = int(found[0]["rev"]) if found else 0
        if not tally.accepted <= rev <= tally.accepted + tally.unknown:
            tally.miscounted.append(f"revision {rev} after {tally.accepted} accepted commands")
        return tally
