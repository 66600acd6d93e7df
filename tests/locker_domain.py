"""A locker domain in the test's own process, with an operator and an edge's outbox beside it.

Broker and store are real. The test may close the domain and open it again on the same store.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from patchbay.bus import Bus, Message
from patchbay.inbox import Aggregate, Aggregates
from patchbay.messages import Event, decode_events, encode, new_event, now, rfc3339
from patchbay.outbox import Outbox
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.testing import PATIENCE_S, MakeBus, until
from patchbay.topics import Topics, device_id
from patchbay_locker.board import Board, Rental
from patchbay_locker.domain import LockerDomain
from patchbay_locker.messages import Report
from patchbay_locker.numbering import key
from patchbay_locker.settings import LockerSettings
from patchbay_locker.store import BOARDS, LockerStore

DOMAIN = "locker-domain-test"
EDGE = "locker-edge-test"
TOPICS = Topics()
ANSWERS = TOPICS.reply("people")
BOOT = 1_700_000_000
GROUPS = [f"{row:08b}" for row in (0x5B, 0xFF, 0xB7, 0xFF, 0x9F, 0xFF, 0xB7, 0xFF)]
"""The locks of the worked case: cells 2, 4, 5, 7, 8, 9 and so on."""


class Ears:
    """Hears the locker, its dead letters and what units say of themselves, in order."""

    def __init__(self, bus: Bus) -> None:
        self.messages: list[Message] = []
        for part in ("locker", "dead", "status", "reply"):
            bus.listen(f"{TOPICS.root}/{part}/#", self._hear)

    def _hear(self, message: Message) -> None:
        message.ack()
        self.messages.append(message)

    def on(self, topic: str) -> list[bytes]:
        """What was said on a topic."""
        return [message.payload for message in self.messages if message.topic == topic]

    def events(self, name: str, board: str = "1953") -> list[Event]:
        """The events of a board, those published twice twice."""
        payloads = self.on(TOPICS.event("locker", device_id(board), name))
        return [event for payload in payloads for event in decode_events(payload)]

    def facts(self, name: str, board: str = "1953") -> list[dict[str, Any]]:
        """What those events say."""
        return [msgspec.json.decode(event.data) for event in self.events(name, board)]

    def desired(self, board: str = "1953") -> list[dict[str, Any]]:
        payloads = self.on(TOPICS.desired("locker", device_id(board)))
        return [json.loads(payload) for payload in payloads if payload]

    def states(self, board: str = "1953") -> list[dict[str, Any]]:
        return [json.loads(one) for one in self.on(TOPICS.state("locker", device_id(board)))]


class Office:
    """The domain and those around it. ``async with``, then `open`."""

    def __init__(self, make_bus: MakeBus, store: Store, directory: Path) -> None:
        self.make_bus = make_bus
        self.store = store
        self.operator = make_bus("operator")
        self.listener = make_bus("ears")
        self.ears = Ears(self.listener)
        self.domain: LockerDomain
        self.outbox: Outbox
        self._file = directory / "outbox.sqlite"
        self._sends: dict[str, int] = {}
        self._around = AsyncExitStack()
        self._within = AsyncExitStack()

    async def __aenter__(self) -> Self:
        edge = self.make_bus(EDGE)
        self.outbox = await self._around.enter_async_context(Outbox(edge, "locker", self._file))
        for bus in (self.operator, self.listener, edge):
            bus.start()
            await bus.wait_connected(PATIENCE_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
        await self._around.aclose()

    async def open(self, **settings: Any) -> None:
        """Start the domain on a session that the broker keeps, and wait until it is online."""
        await self.open_without_waiting(**settings)
        await self.domain.bus.wait_online(PATIENCE_S)

    async def open_without_waiting(self, **settings: Any) -> None:
        table = LockerSettings(**{"state_interval_s": 0.05, **settings})
        stored = StoreSettings(backoff_initial_s=0.05, backoff_max_s=0.2)
        bus = self.make_bus(DOMAIN, durable=True, announce=True)
        self._within.push_async_callback(bus.stop)
        kept = LockerStore(self.store, 3600)
        domain = LockerDomain(bus, self.store, kept, table, stored)
        self.domain = await self._within.enter_async_context(domain)
        bus.start()
        await bus.set_ready()

    async def close(self) -> None:
        """Stop the domain as its unit does."""
        await self._within.aclose()

    # What an edge does

    def add(self, *, board: str = "1953", at: datetime | None = None, **said: Any) -> Report:
        """Put a report into the edge's outbox: the next SEND, with the locks of the worked case."""
        send = self._sends[board] = self._sends.get(board, 0) + 1
        fields = {"boot": BOOT, "send": send, "cols": 8, "rows": 8, "act_con": GROUPS, **said}
        report = Report(board=board, **fields)
        device = device_id(board)
        self.outbox.add(
            device,
            "report",
            key=key(device, report.boot, report.send),
            subject=board,
            time=rfc3339(at or now()),
            data=report,
        )
        return report

    async def persisted(self) -> None:
        """Wait until the domain has acknowledged every report."""
        await until(lambda: not self.outbox.waiting)

    async def report(self, **said: Any) -> Report:
        """`add` a report and wait until it is persisted."""
        report = self.add(**said)
        await self.persisted()
        return report

    # What an operator does

    async def ask(self, command: str, *, board: str = "1953", **body: Any) -> dict[str, Any]:
        """The whole answer to a command."""
        topic = TOPICS.command("locker", device_id(board), command)
        answer = await self.operator.request(topic, encode(body), timeout_s=PATIENCE_S)
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    async def done(self, command: str, *, board: str = "1953", **body: Any) -> dict[str, Any]:
        """What a command answers that is not refused."""
        answer = await self.ask(command, board=board, **body)
        assert answer.pop("ok"), answer
        return answer

    async def refused(self, command: str, *, board: str = "1953", **body: Any) -> str:
        """The code with which a command is refused."""
        answer = await self.ask(command, board=board, **body)
        assert not answer["ok"], answer
        assert answer["error"]["message"]
        code: str = answer["error"]["code"]
        return code

    # What the store holds

    async def documents(self, collection: str, **query: Any) -> list[Document]:
        return await self.store.find(collection, query, sort=[("_id", 1)])

    async def document(self, collection: str, id: str) -> Document:
        [found] = await self.documents(collection, _id=id)
        return found

    def has(self, collection: str, id: str, **fields: Any) -> Callable[[], Awaitable[bool]]:
        """Does this document have these fields now? For `eventually`."""

        async def has() -> bool:
            found = await self.documents(collection, _id=id)
            return bool(found) and fields.items() <= found[0].items()

        return has


def rental(cell: int, *, id: str = "", left_s: float = 3600.0) -> Rental:
    """A rental that has run for an hour."""
    moment = now()
    return Rental(
        id=id or f"rental-{cell}",
        cell=cell,
        code=f"{cell:04d}",
        created_at=moment - timedelta(hours=1),
        expires_at=moment + timedelta(seconds=left_s),
    )


def known_board(*rentals: Rental, id: str = "1953", **fields: Any) -> Board:
    """A board that was last heard of two hours ago."""
    ago = now() - timedelta(hours=2)
    known = {"first_seen": ago, "last_seen": ago, "boot": BOOT, "send": 7, "reports": 7, "rev": 3}
    matrix = {"cols": 8, "rows": 8, "act_con": list(GROUPS)}
    return Board(
        id=id,
        rentals={str(one.cell): one for one in rentals},
        **{**known, **matrix, **fields},
    )


async def keep(store: Store, *boards: Board | Aggregate[Board]) -> None:
    """Write boards as a domain does that was killed right after it."""
    aggregates: Aggregates[Board] = Aggregates(store, BOARDS, Board)
    kept = [
        one if isinstance(one, Aggregate) else Aggregate(device_id(one.id), one) for one in boards
    ]
    for one in kept:
        one.changed = True
    await aggregates.save(kept)


def record(one: Rental, board: str = "1953", **fields: Any) -> Document:
    """A rental's record that says that it is active."""
    return {
        "_id": one.id,
        "board": board,
        "cell": one.cell,
        "code": one.code,
        "holder": one.holder,
        "created_at": one.created_at,
        "expires_at": one.expires_at,
        "status": "active",
        "ended_at": None,
        **fields,
    }


def is_time(value: object) -> bool:
    """Is this a moment as the store gives it back: aware, in UTC?"""
    return isinstance(value, datetime) and value.utcoffset() == timedelta()


async def order(office: Office, command: str, body: bytes, **more: Any) -> None:
    """Publish a command whose answer goes where `answers` finds it."""
    topic = TOPICS.command("locker", "1953", command)
    await office.operator.publish(topic, body, response_topic=ANSWERS, **more)


def answers(office: Office) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in office.ears.on(ANSWERS)]


def enveloped(command: str, body: Mapping[str, Any], *, id: str = "c1") -> bytes:
    """A command as a program sends it, with an id of its own."""
    return new_event(id=id, source="a-program", type=f"patchbay.locker.{command}", data=body)


async def desired_codes(office: Office, rev: int) -> dict[int, str]:
    """Cell -> code of this revision of what the board is to know."""
    await until(lambda: office.ears.desired()[-1]["rev"] >= rev)
    [desired] = [one for one in office.ears.desired() if one["rev"] == rev]
    return {one["cell"]: one["code"] for one in desired["rentals"]}
