"""The locker edge by real sockets, with a real outbox and a real broker.

The domain service is the test: it says what boards are to know, and acknowledges reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest

from patchbay.bus import Bus, Message
from patchbay.log import get_logger
from patchbay.messages import Ack, Event, decode_events, encode
from patchbay.net import Limits, Peer, Server
from patchbay.outbox import Journal, Outbox, Row
from patchbay.testing import MakeBus, Part, eventually, until
from patchbay.topics import Topics, device_id
from patchbay_locker.edge import BoardSession, LockerEdge
from patchbay_locker.messages import Report
from patchbay_locker.wire import Request, encode_request

EDGE = "locker-edge-x"
DOMAIN = "locker-domain-x"
TOPICS = Topics()
ANSWER_TIMEOUT_S = 15.0
LATER = "2099-01-01T00:00:00.000Z"

GROUPS = "01011011,11111111,10110111,11111111,10011111,11111111,10110111,11111111"
WORKED = (
    "ACon_V1.0 ID=1953 SEND=141349 CONNECTION=1 WIFI_STATE=0 GSM_STATE=0 RESET=1 STATE=0 COLS=8 "
    f"ROWS=8 ACT_CON={GROUPS} BOX_ENG=2,5,8,23,24,25 BOX_TO=33,34 BOX_ACC=1,54,43 CLOSE"
)
"""The worked case of the protocol: fifteen lines, joined with CR LF, nothing after CLOSE."""


def worked(send: int = 141349, *, id: str = "1953") -> bytes:
    lines = WORKED.replace("SEND=141349", f"SEND={send}").replace("ID=1953", f"ID={id}")
    return lines.replace(" ", "\r\n").encode()


def worked_answer(send: int = 141349, *, id: str = "1953") -> bytes:
    return f"ACon_V1.0\nID={id}\nSEND={send}\nRESET=0\nSTATE=0\nCLOSE\n".encode()


def report(
    send: int, *, id: str = "1953", reset: bool = False, accessed: tuple[int, ...] = ()
) -> bytes:
    return encode_request(Request("ACon_V1.0", id, send, str(send), reset=reset, box_acc=accessed))


class Line:
    """A board's connection, byte for byte. ``async with``."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.hang_up()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def hear(self) -> bytes:
        """The next answer, whole."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._reader.readuntil(b"CLOSE\n")

    async def ask(self, data: bytes) -> bytes:
        self.say(data)
        return await self.hear()

    async def rest(self) -> bytes:
        """All that comes until the edge closes the connection."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read()
        return b""

    def hang_up(self) -> None:
        self._writer.close()


class Running:
    """An edge that runs."""

    def __init__(self, edge: LockerEdge, server: Server, sessions: list[BoardSession]) -> None:
        self.edge = edge
        self.sessions = sessions
        self.outbox = edge.outbox
        self.bus = edge.bus
        self.server = server

    def line(self) -> Line:
        return Line(self.server.port)

    async def ask(self, data: bytes) -> bytes:
        """One report on a connection of its own, and its answer; b"" if it is closed unanswered."""
        async with self.line() as line:
            try:
                return await line.ask(data)
            except asyncio.IncompleteReadError as end:
                return end.partial
            except ConnectionError:
                return b""

    async def holds(self, id: str, rev: int) -> None:
        """Wait until the edge holds this revision for a board."""
        board = self.edge.memory.board(device_id(id))
        await until(lambda: board.desired is not None and board.desired.rev >= rev)

    def empty(self) -> bool:
        """Is every report acknowledged, and forgotten?"""
        return self.outbox.waiting == 0


@contextlib.asynccontextmanager
async def running(bus: Bus, file: Path, **limits: Any) -> AsyncIterator[Running]:
    """Run an edge, as its unit does."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bus.stop)
        outbox = await stack.enter_async_context(Outbox(bus, "locker", file, **limits))
        edge = LockerEdge(bus, outbox)
        sessions: list[BoardSession] = []

        def connected(peer: Peer) -> BoardSession:
            sessions.append(edge.connected(peer))
            return sessions[-1]

        server = Server(connected, "127.0.0.1", 0, Limits(), get_logger("test"))
        edge.server = await stack.enter_async_context(server)
        bus.start()
        await bus.set_ready()
        yield Running(edge, server, sessions)


class Domain:
    """What the edge hears of its domain service, and what it says to that."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.acknowledges = True
        self.events: list[Event] = []
        self.letters: list[dict[str, Any]] = []
        self._upto: dict[tuple[str, str], int] = {}
        bus.listen(TOPICS.event("locker", "+", "report"), self._taken)
        bus.listen(TOPICS.batch("locker", EDGE), self._taken)
        bus.listen(TOPICS.dead("locker"), self._buried)

    def _taken(self, message: Message) -> None:
        message.ack()
        for event in decode_events(message.payload):
            source = (event.source, event.epoch)
            if event.sequence == self._upto.get(source, 0) + 1:
                self._upto[source] = event.sequence
                self.events.append(event)
        if self.acknowledges:
            self.acknowledge()

    def _buried(self, message: Message) -> None:
        message.ack()
        self.letters.append(json.loads(message.payload))

    def acknowledge(self) -> None:
        for (source, epoch), upto in self._upto.items():
            self.bus.post(TOPICS.ack(source), encode(Ack(epoch, upto)))

    @property
    def reports(self) -> list[Report]:
        return [msgspec.json.decode(event.data, type=Report) for event in self.events]

    async def want(
        self, rev: int, *, id: str = "1953", codes: dict[int, str] | None = None, **more: Any
    ) -> None:
        """Say what a board is to know."""
        rentals = [
            {"cell": cell, "code": code, "expires_at": LATER}
            for cell, code in (codes or {}).items()
        ]
        desired = {"rev": rev, "board": id, "rentals": rentals, **more}
        await self.bus.publish(
            TOPICS.desired("locker", device_id(id)), encode(desired), retain=True
        )

    async def say(self, status: str = "online", *, instance: str = DOMAIN) -> None:
        """What a unit says of itself: retained, as a unit does."""
        await self.bus.publish(TOPICS.unit_status(instance), status.encode(), retain=True)


@pytest.fixture
async def domain(make_bus: MakeBus) -> Domain:
    bus = make_bus("the-test")
    domain = Domain(bus)
    bus.start()
    await bus.wait_connected(10)
    return domain


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


@pytest.fixture
async def here(make_bus: MakeBus, domain: Domain, file: Path) -> AsyncIterator[Running]:
    """An edge that holds a desired state without codes, revision 1, of board 1953."""
    await domain.want(1)
    async with running(make_bus(EDGE, announce=True), file) as here:
        await here.holds("1953", 1)
        yield here


async def unanswered(here: Running, stranger: bytes, send: int) -> None:
    """The stranger's report is taken in and board 1953's, behind it, is the first answered."""
    async with here.line() as line:
        line.say(stranger)
        assert await line.ask(worked(send)) == worked_answer(send)


# The worked case


async def test_the_worked_case_is_answered_byte_for_byte(here: Running) -> None:
    answer = await here.ask(worked())
    assert answer == b"ACon_V1.0\nID=1953\nSEND=141349\nRESET=0\nSTATE=0\nCLOSE\n"
    assert len(answer) == 52


async def test_the_worked_case_is_answered_when_it_comes_byte_by_byte(here: Running) -> None:
    async with here.line() as line:
        for byte in worked():
            line.say(bytes([byte]))
            await asyncio.sleep(0)
        assert await line.hear() == worked_answer()


async def test_three_pipelined_reports_are_answered_in_order(here: Running, domain: Domain) -> None:
    sends = range(141349, 141352)
    async with here.line() as line:
        line.say(b"".join(map(worked, sends)))
        assert [await line.hear() for _ in sends] == [worked_answer(send) for send in sends]
    await until(lambda: [event.send for event in domain.reports] == list(sends))


async def test_the_worked_case_is_a_report_on_the_bus(here: Running, domain: Domain) -> None:
    await here.ask(worked())
    await until(lambda: domain.events)
    [event], [said] = domain.events, domain.reports
    assert event.id == f"1953:{said.boot}:0000141349"
    assert (event.source, event.type, event.subject) == (EDGE, "patchbay.locker.report", "1953")
    assert (event.sequence, event.epoch) == (1, here.outbox.epoch)
    assert msgspec.to_builtins(said) == {
        "board": "1953",
        "boot": said.boot,
        "send": 141349,
        "rebooted": True,
        "late": False,
        "maybe_repeat": False,
        "connection": 1,
        "wifi_state": 0,
        "gsm_state": 0,
        "reset": True,
        "state": [0],
        "cols": 8,
        "rows": 8,
        "act_con": GROUPS.split(","),
        "box_eng": [2, 5, 8, 23, 24, 25],
        "box_to": [33, 34],
        "box_acc": [1, 54, 43],
        "rev": 1,
        "extra": {},
    }
    await until(here.empty)


async def test_keys_that_the_protocol_does_not_name_go_on_as_they_came(
    here: Running, domain: Domain
) -> None:
    await here.ask(worked().replace(b"STATE=0\r\nCOLS", b"STATE=0\r\nBATTERY=3.7 V\r\nCOLS"))
    await until(lambda: domain.events)
    assert domain.reports[0].extra == {"BATTERY": "3.7 V"}


async def test_a_board_with_an_odd_name_has_a_topic_and_hears_its_own_name(
    here: Running, domain: Domain
) -> None:
    name = "Stadt Ost/7"
    await domain.want(1, id=name, codes={2: "1492"})
    await here.holds(name, 1)
    async with here.line() as line:
        answer = await line.ask(worked(id=name).replace(b"ID=Stadt\r\nOst/7", b"ID=Stadt Ost/7"))
    assert answer.startswith(b"ACon_V1.0\nID=Stadt Ost/7\nSEND=141349\n")
    assert b"\nBOX_ENG=(2,1492," in answer
    await until(lambda: domain.events)
    assert domain.events[0].id.startswith("stadt_ost_7-")
    assert domain.reports[0].board == name


# What a board is told


async def test_an_answer_carries_all_codes_and_the_block(here: Running, domain: Domain) -> None:
    await domain.want(2, codes={2: "1492", 63: "0007"}, blocked=True)
    await here.holds("1953", 2)
    head, *codes, end, nothing = (await here.ask(report(1))).split(b"\n")[3:]
    assert (head, end, nothing) == (b"RESET=0", b"CLOSE", b"")
    assert codes[0] == b"STATE=3"
    assert [code.rpartition(b",")[0] for code in codes[1:]] == [
        b"BOX_ENG=(2,1492",
        b"BOX_ENG=(63,0007",
    ]


async def test_an_older_desired_state_and_nonsense_change_nothing(
    here: Running, domain: Domain
) -> None:
    await domain.want(5, codes={2: "1492"})
    await here.holds("1953", 5)
    await domain.want(4, codes={3: "1111"})
    await domain.bus.publish(TOPICS.desired("locker", "1953"), b"nonsense")
    await until(lambda: domain.letters)
    assert bytes.fromhex(domain.letters[0]["hex"]) == b"nonsense"
    assert domain.letters[0]["topic"] == TOPICS.desired("locker", "1953")
    answer = await here.ask(report(1))
    assert b"(2,1492," in answer
    assert b"(3," not in answer


async def test_a_retained_desired_state_is_answered_from_before_the_domain_is_seen(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(3, codes={2: "1492"})
    async with running(make_bus(EDGE), file) as here:
        await here.holds("1953", 3)
        assert not here.edge.domain_seen
        assert b"\nBOX_ENG=(2,1492," in await here.ask(report(1))


# A board of which nothing is held


async def test_a_board_of_which_nothing_is_held_is_answered_once_the_domain_says_online(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(report(7, id="stranger"))
        assert await line.ask(worked(1)) == worked_answer(1)
        await domain.say()
        assert await line.hear() == worked_answer(7, id="stranger")
        assert await line.ask(report(8, id="stranger")) == worked_answer(8, id="stranger")
    assert await here.ask(report(1, id="another")) == worked_answer(1, id="another")
    await until(lambda: [one.send for one in domain.reports] == [7, 1, 8, 1])


async def test_it_is_answered_with_its_codes_when_its_desired_state_comes_first(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(report(7, id="stranger"))
        assert await line.ask(worked(1)) == worked_answer(1)
        await domain.want(1, id="stranger", codes={2: "1492"})
        answer = await line.hear()
        assert answer.startswith(b"ACon_V1.0\nID=stranger\nSEND=7\n")
        assert b"\nBOX_ENG=(2,1492," in answer
        await domain.say()
        await until(lambda: here.edge.domain_seen)
        assert await line.ask(worked(2)) == worked_answer(2)


async def test_only_the_last_of_its_reports_is_answered_late(here: Running, domain: Domain) -> None:
    async with here.line() as line:
        line.say(report(7, id="stranger") + report(8, id="stranger"))
        assert await line.ask(worked(1)) == worked_answer(1)
        await domain.say()
        assert await line.hear() == worked_answer(8, id="stranger")
        assert await line.ask(worked(2)) == worked_answer(2)


async def test_a_board_that_hung_up_meanwhile_is_forgotten(here: Running, domain: Domain) -> None:
    await unanswered(here, report(7, id="stranger"), 1)
    await until(lambda: here.server.connections == 0)
    await domain.say()
    await until(lambda: here.edge.domain_seen)
    assert await here.ask(report(8, id="stranger")) == worked_answer(8, id="stranger")


async def test_an_online_that_was_retained_is_not_seen(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.say()
    await domain.want(1)
    async with running(make_bus(EDGE, announce=True), file) as here:
        await here.holds("1953", 1)
        await here.bus.wait_online(10)
        await here.bus.publish("patchbay/after/all/retained", b"")
        await unanswered(here, report(7, id="stranger"), 1)
        assert not here.edge.domain_seen
        await domain.say()
        assert await here.ask(report(8, id="stranger")) == worked_answer(8, id="stranger")


@pytest.mark.parametrize(
    ("instance", "status"),
    [(DOMAIN, "offline"), ("allocator-domain-x", "online"), ("locker-edge-y", "online")],
)
async def test_only_an_online_of_the_locker_domain_counts(
    here: Running, domain: Domain, instance: str, status: str
) -> None:
    await domain.say(status, instance=instance)
    await domain.want(2)  # what comes after it has come
    await here.holds("1953", 2)
    await unanswered(here, report(7, id="stranger"), 1)


async def test_a_board_whose_desired_state_was_removed_is_a_stranger_again(
    here: Running, domain: Domain
) -> None:
    await domain.want(1, id="known")
    await domain.want(1, id="old", codes={2: "1492"})
    await here.holds("old", 1)
    await domain.bus.publish(TOPICS.desired("locker", "old"), b"", retain=True)
    board = here.edge.memory.board("old")
    await until(lambda: board.desired is None)
    await unanswered(here, report(7, id="old"), 1)


# Bad input

LONG = b"X" * 4097
BAD = {
    "no ID": worked().replace(b"ID=1953\r\n", b""),
    "an ID that is empty": worked().replace(b"ID=1953", b"ID="),
    "no SEND": worked().replace(b"SEND=141349\r\n", b""),
    "a header of another protocol": worked().replace(b"ACon_V1.0", b"BCon_V1.0"),
    "a request of the web": b"GET / HTTP/1.1\r\nHost: lockers\r\n\r\n",
    "a SEND that is no number": worked().replace(b"141349", b"14x349"),
    "a cell that is no number": worked().replace(b"BOX_TO=33,34", b"BOX_TO=33,-4"),
    "a message over 64 KiB": worked()[:-5] + b"K=" + b"\r\nK=".join([b"x" * 1000] * 66) + b"\r\n",
    "a line over 4 KiB": worked().replace(b"STATE=0\r\nCOLS", b"K=" + LONG + b"\r\nCOLS"),
    "a line over 4 KiB that does not end": worked()[:-5] + LONG,
    "bytes that are not UTF-8": worked().replace(b"STATE=0\r\nCOLS", b"K=\xff\xfe\r\nCOLS"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_bad_input_closes_that_connection_only_and_becomes_a_dead_letter(
    here: Running, domain: Domain, bad: bytes
) -> None:
    async with here.line() as other, here.line() as line:
        assert await other.ask(worked(1)) == worked_answer(1)
        line.say(bad)
        assert await line.rest() == b""
        assert await other.ask(worked(2)) == worked_answer(2)
    await until(lambda: domain.letters)
    [letter] = domain.letters
    assert bytes.fromhex(letter["hex"]) == bad[:1024]
    assert letter["reason"]
    assert letter["source"] == EDGE
    assert letter["peer"].startswith("127.0.0.1:")
    assert here.edge.bad_input == 1
    await until(lambda: [one.send for one in domain.reports] == [1, 2])


async def test_a_dead_letter_says_why(here: Running, domain: Domain) -> None:
    for number, name in enumerate(("no ID", "no SEND", "bytes that are not UTF-8"), start=1):
        assert await here.ask(BAD[name]) == b""
        await until(lambda: len(domain.letters) == number)  # noqa: B023 - awaited at once
        assert domain.letters[-1]["reason"] == name


async def test_good_reports_before_a_bad_one_in_the_same_write_are_answered(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(worked(1) + worked(2) + BAD["no ID"] + worked(3))
        assert await line.rest() == worked_answer(1) + worked_answer(2)
    await until(lambda: domain.letters)
    await until(here.empty)
    assert [one.send for one in domain.reports] == [1, 2]
    assert bytes.fromhex(domain.letters[0]["hex"]).startswith(BAD["no ID"])


async def test_what_comes_behind_bad_input_is_no_second_one(here: Running, domain: Domain) -> None:
    async with here.line() as line:
        assert await line.ask(worked(1)) == worked_answer(1)
        [session] = here.sessions
        session.received(BAD["no ID"])
        session.received(b"and more of it, before the connection is closed")
        assert await line.rest() == b""
    assert await here.ask(BAD["no SEND"]) == b""
    await until(lambda: [one["reason"] for one in domain.letters][-1:] == ["no SEND"])
    assert [one["reason"] for one in domain.letters] == ["no ID", "no SEND"]
    assert here.edge.bad_input == 2


# Repeats, late packets and reboots


async def test_the_same_bytes_again_are_answered_and_are_no_second_event(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(worked() + worked())
        assert [await line.hear(), await line.hear()] == [worked_answer()] * 2
    assert await here.ask(worked()) == worked_answer()
    assert await here.ask(worked(141350)) == worked_answer(141350)
    await until(lambda: [one.send for one in domain.reports] == [141349, 141350])


async def test_the_same_bytes_after_a_restart_of_the_edge_are_no_second_event(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1)
    for _ in range(2):
        async with running(make_bus(EDGE), file) as here:
            await here.holds("1953", 1)
            assert await here.ask(worked()) == worked_answer()
            await until(here.empty)
    assert [one.send for one in domain.reports] == [141349]


async def test_accesses_said_again_may_be_repeats_when_no_answer_was_written(
    here: Running, domain: Domain
) -> None:
    sent = [
        report(1, id="new", accessed=(1, 54)),
        report(2, id="new", accessed=(1, 54)),
        report(3, id="new", accessed=(1,)),
        report(4, id="new"),
        report(5, id="new", accessed=(7,)),
    ]
    async with here.line() as line:
        for number, each in enumerate(sent, start=1):
            line.say(each)
            assert await line.ask(worked(number)) == worked_answer(number)
        await domain.say()
        assert await line.hear() == worked_answer(5, id="new")
        await line.ask(report(6, id="new", accessed=(7,)))
    await until(lambda: len(domain.reports) == 11)
    said = [one.maybe_repeat for one in domain.reports if one.board == "new"]
    assert said == [False, True, False, False, False, False]


async def test_an_answer_to_a_late_packet_is_none_to_the_report_before_it(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    async with running(make_bus(EDGE), file) as here:
        await domain.want(1)
        await here.holds("1953", 1)
        await unanswered(here, report(50, id="new", accessed=(7,)), 1)
        await until(lambda: here.server.connections == 0)
        await domain.want(1, id="new")
        await here.holds("new", 1)
        async with here.line() as line:
            await line.ask(report(49, id="new"))
            await line.ask(report(51, id="new", accessed=(7,)))
        await until(lambda: len(domain.reports) == 4)
    said = {one.send: one for one in domain.reports if one.board == "new"}
    assert (said[49].late, said[51].late, said[51].maybe_repeat) == (True, False, True)


async def test_a_late_packet_is_answered_and_is_an_event_that_says_so(
    here: Running, domain: Domain
) -> None:
    for send in (100, 101, 99, 102):
        assert await here.ask(worked(send).replace(b"RESET=1", b"RESET=0")) == worked_answer(send)
    await until(lambda: len(domain.reports) == 4)
    assert [one.late for one in domain.reports] == [False, False, True, False]
    assert len({one.boot for one in domain.reports}) == 1
    assert len({event.id for event in domain.events}) == 4


def said_reset(answers: Iterable[bytes]) -> list[bool]:
    return [b"\nRESET=1\n" in answer for answer in answers]


async def test_a_board_is_rebooted_once_for_one_id_also_by_an_edge_that_started_again(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1, reset_id=7)
    async with running(make_bus(EDGE), file) as here:
        await here.holds("1953", 1)
        before = [await here.ask(report(send)) for send in (500, 501)]
        rebooted = [await here.ask(report(1, reset=True)), await here.ask(report(2))]
        assert said_reset(before) == [True, True]
        assert said_reset(rebooted) == [False, False]
        await until(here.empty)
    assert [one.rebooted for one in domain.reports] == [False, False, True, False]

    async with running(make_bus(EDGE), file) as here:
        assert said_reset([await here.ask(report(3))]) == [False]
        await domain.want(2, reset_id=7)
        await here.holds("1953", 2)
        assert said_reset([await here.ask(report(4))]) == [False]
        await domain.want(3, reset_id=8)
        await here.holds("1953", 3)
        assert said_reset([await here.ask(report(5))]) == [True]


async def test_a_reboot_that_only_the_number_shows_is_one_too(
    here: Running, domain: Domain
) -> None:
    await domain.want(2, reset_id=1)
    await here.holds("1953", 2)
    assert said_reset([await here.ask(report(send)) for send in (500, 501, 1, 2)]) == [
        True,
        True,
        False,
        False,
    ]


async def test_a_report_that_says_reset_is_not_rebooted_for_an_order_that_came_later(
    here: Running, domain: Domain
) -> None:
    await here.ask(report(1, reset=True))
    await domain.want(2, reset_id=1)
    await here.holds("1953", 2)
    assert said_reset([await here.ask(report(2)), await here.ask(report(3))]) == [True, True]


# What is in the way


async def test_boards_are_answered_while_the_broker_is_down_and_nothing_is_lost(
    here: Running, domain: Domain, mosquitto: Part
) -> None:
    await domain.want(2, codes={2: "1492"})
    await here.holds("1953", 2)
    mosquitto.kill()
    for send in range(1, 31):
        assert b"\nBOX_ENG=(2,1492," in await here.ask(report(send))
    assert here.outbox.waiting == 30
    mosquitto.start()
    await until(here.empty)
    assert [one.send for one in domain.reports] == list(range(1, 31))


async def test_a_full_outbox_closes_unanswered_and_reads_nobody_until_there_is_room(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1)
    domain.acknowledges = False
    async with running(make_bus(EDGE), file, max_rows=3) as here:
        await here.holds("1953", 1)
        async with here.line() as other:
            assert [await here.ask(worked(send)) for send in (1, 2)] == [
                worked_answer(1),
                worked_answer(2),
            ]
            async with here.line() as line:
                line.say(worked(3) + worked(4) + worked(5))
                assert await line.rest() == worked_answer(3)
            assert here.server.paused
            other.say(worked(6))
            await until(lambda: len(domain.events) == 3)
            assert here.server.paused
            domain.acknowledges = True
            domain.acknowledge()
            assert await other.hear() == worked_answer(6)
        assert not here.server.paused
        await until(here.empty)
    assert [one.send for one in domain.reports] == [1, 2, 3, 6]


async def test_a_repeat_is_answered_though_the_outbox_is_full(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1)
    domain.acknowledges = False
    async with running(make_bus(EDGE), file, max_rows=1) as here:
        await here.holds("1953", 1)
        async with here.line() as line:
            line.say(worked(1) + worked(1) + worked(2))
            assert await line.rest() == worked_answer(1) * 2


class FullDisk:
    """Stands in the place of `Journal.commit`: fails once for events, when armed."""

    def __init__(self) -> None:
        self.armed = False
        self._commit = Journal.commit

    def __call__(self, journal: Journal, rows: list[Row], *more: Any) -> None:
        if self.armed and rows:
            self.armed = False
            raise sqlite3.OperationalError("database or disk is full")
        self._commit(journal, rows, *more)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    disk = FullDisk()
    monkeypatch.setattr(Journal, "commit", lambda *what: disk(*what))
    return disk


async def test_what_could_not_be_written_is_not_answered_and_its_next_try_is_taken(
    here: Running, domain: Domain, disk: FullDisk
) -> None:
    assert await here.ask(worked(1)) == worked_answer(1)
    await until(here.empty)
    disk.armed = True
    async with here.line() as line:
        line.say(worked(2) + worked(3))
        assert await line.rest() == b""
    assert not disk.armed

    async def taken() -> bool:  # the disk is tried again after a moment
        return await here.ask(worked(2)) == worked_answer(2)

    await eventually(taken)
    await until(lambda: [one.send for one in domain.reports] == [1, 2])


async def test_a_reboot_that_could_not_be_written_is_done_with_the_next_try(
    make_bus: MakeBus, domain: Domain, file: Path, disk: FullDisk
) -> None:
    await domain.want(1, reset_id=1)
    async with running(make_bus(EDGE), file) as here:
        await here.holds("1953", 1)
        assert said_reset([await here.ask(report(500))]) == [True]
        disk.armed = True
        assert await here.ask(report(1, reset=True)) == b""

        async def taken() -> bool:
            return await here.ask(report(2, reset=True)) == worked_answer(2)

        await eventually(taken)
    async with running(make_bus(EDGE), file) as here:
        assert said_reset([await here.ask(report(3))]) == [False]
