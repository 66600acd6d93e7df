"""The locker domain service with a real store, a real broker and a real outbox before it."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from patchbay.messages import DeadLetter, encode, now, parse_time, rfc3339
from patchbay.testing import MakeBus, Part, eventually, until
from tests.locker_domain import (
    BOOT,
    DOMAIN,
    EDGE,
    GROUPS,
    TOPICS,
    Office,
    is_time,
    keep,
    known_board,
    rental,
)

STATUS = TOPICS.status("locker", "1953")


def buried(office: Office, number: int) -> Callable[[], Awaitable[bool]]:
    """Are there so many dead letters in the store? For `eventually`."""

    async def buried() -> bool:
        return len(await office.documents("dead")) == number

    return buried


# Reports


async def test_a_report_becomes_a_board(office: Office) -> None:
    await office.open()
    at = now()
    await office.report(
        at=at, connection=1, state=[0], box_eng=[2, 5], box_to=[33], box_acc=[1, 54, 43]
    )
    found = await office.document("boards", "1953")
    assert found["first_seen"] == found["last_seen"] == at
    assert is_time(found["last_seen"])
    assert found["applied"] == {EDGE: {"epoch": office.outbox.epoch, "seq": 1}}
    expected = {
        "id": "1953",
        "boot": BOOT,
        "send": 1,
        "reports": 1,
        "accesses": 3,
        "online": True,
        "connection": 1,
        "wifi_state": 0,
        "gsm_state": 0,
        "state": [0],
        "cols": 8,
        "rows": 8,
        "act_con": GROUPS,
        "box_eng": [2, 5],
        "box_to": [33],
        "blocked": False,
        "reset_id": None,
        "reset_done": 0,
        "rev": 0,
        "rentals": {},
    }
    assert {name: found[name] for name in expected} == expected


async def test_each_access_is_a_document_and_an_opened_event(office: Office) -> None:
    at = now()
    await keep(office.store, known_board(rental(54)))
    await office.open()
    await office.report(at=at, box_acc=[1, 54], maybe_repeat=True)
    accesses = await office.documents("accesses")
    common = {"board": "1953", "boot": BOOT, "send": 1, "at": at, "maybe_repeat": True}
    assert accesses == [
        {"_id": f"1953:{BOOT}:0000000001:0001", "cell": 1, "rental": None, **common},
        {"_id": f"1953:{BOOT}:0000000001:0054", "cell": 54, "rental": "rental-54", **common},
    ]
    assert is_time(accesses[0]["at"])
    await until(lambda: len(office.ears.facts("opened")) == 2)
    said = {"board": "1953", "boot": BOOT, "send": 1, "maybe_repeat": True}
    assert office.ears.facts("opened") == [
        {"cell": 1, "rental": None, **said},
        {"cell": 54, "rental": "rental-54", **said},
    ]
    event = office.ears.events("opened")[0]
    assert (event.source, event.type) == (DOMAIN, "patchbay.locker.opened")
    assert (event.subject, event.time) == ("1953", rfc3339(at))


async def test_the_first_report_says_online_and_a_reboot_says_rebooted(office: Office) -> None:
    await keep(office.store, known_board(reset_id=4, online=True, send=500))
    await office.open()
    await office.report(rebooted=True, reset=True, boot=BOOT + 60)
    await office.report(board="new here")
    await until(lambda: office.ears.events("online", "new here") and office.ears.events("rebooted"))
    assert office.ears.facts("online", "new here") == [{"board": "new here"}]
    assert office.ears.facts("online") == []
    assert office.ears.facts("rebooted") == [
        {"board": "1953", "boot": BOOT + 60, "send": 1, "reset_id": 4}
    ]
    assert (await office.document("boards", "1953"))["reset_done"] == 4
    assert [one["reset_id"] for one in office.ears.desired()] == [4, None]


async def test_an_alarm_is_an_event_once_and_stands_in_the_state(office: Office) -> None:
    await office.open()
    for state in ([0], [1], [1]):
        await office.report(state=state)
    await until(lambda: office.ears.states()[-1:] and office.ears.states()[-1]["reports"] == 3)
    assert [one["alarm"] for one in office.ears.facts("alarm")] == ["short_circuit"]
    assert office.ears.states()[-1]["alarms"] == ["short_circuit"]


async def test_what_follows_is_forgotten_in_the_board_once_the_broker_has_it(
    office: Office,
) -> None:
    await office.open()
    await office.report(box_acc=[2])
    await eventually(office.has("boards", "1953", outgoing=""))
    await until(lambda: len(office.ears.events("opened")) == 1)


async def test_many_reports_of_many_boards_are_counted_once_each(office: Office) -> None:
    await office.open()
    for _ in range(40):
        for board in ("1953", "a", "ab"):
            office.add(board=board, box_acc=[2, 4])
    await office.persisted()
    for board in ("1953", "a", "ab"):
        found = await office.document("boards", board)
        assert (found["reports"], found["accesses"], found["send"]) == (40, 80, 40)
    opened = office.ears.events
    await until(lambda: {len(opened("opened", one)) for one in ("1953", "a", "ab")} == {80})
    assert len(await office.documents("accesses")) == 240


async def test_a_report_that_comes_twice_changes_nothing_the_second_time(office: Office) -> None:
    await office.open()
    await office.report(box_acc=[2])
    topic = TOPICS.event("locker", "1953", "report")
    await office.operator.publish(topic, office.ears.on(topic)[0])
    await office.report()
    assert (await office.document("boards", "1953"))["reports"] == 2
    assert len(await office.documents("accesses")) == 1


async def test_a_report_that_nobody_can_read_is_set_aside_and_the_others_are_taken(
    office: Office,
) -> None:
    await office.open()
    await office.report()
    office.add()
    office.outbox.add("1953", "report", key="bad", subject="1953", time="t", data={"send": "x"})
    office.add(box_acc=[2])
    await office.persisted()
    assert (await office.document("boards", "1953"))["reports"] == 3
    await eventually(buried(office, 1))
    [letter] = await office.documents("dead")
    assert json.loads(bytes.fromhex(letter["hex"]))["id"] == "bad"
    assert len(office.ears.events("opened")) == 1


# What is retained


async def test_the_state_is_retained_and_says_no_code(office: Office, make_bus: MakeBus) -> None:
    await keep(office.store, known_board(rental(2), rental(5)))
    await office.open()
    await office.report(connection=2, box_eng=[2])
    await until(lambda: office.ears.states()[-1]["reports"] == 8)
    late = make_bus("late")
    said: dict[str, bytes] = {}
    late.listen("patchbay/locker/1953/+", lambda one: said.update({one.topic: one.payload}))
    late.start()
    await until(lambda: len(said) == 3)
    state = json.loads(said[TOPICS.state("locker", "1953")])
    assert said[STATUS] == b"online"
    assert (state["board"], state["online"], state["connection"]) == ("1953", True, 2)
    assert (state["busy"], state["free"][:4], state["box_eng"]) == ([2, 5], [4, 7, 8, 9], [2])
    assert [one["rental"] for one in state["rentals"]] == ["rental-2", "rental-5"]
    assert b"0002" not in said[TOPICS.state("locker", "1953")]
    desired = json.loads(said[TOPICS.desired("locker", "1953")])
    assert [(one["cell"], one["code"]) for one in desired["rentals"]] == [(2, "0002"), (5, "0005")]


async def test_a_state_is_published_at_most_so_often_however_often_a_board_reports(
    office: Office,
) -> None:
    interval_s = 0.3
    began = time.monotonic()
    await office.open(state_interval_s=interval_s)
    for _ in range(60):
        await office.report()
    await until(lambda: office.ears.states()[-1:] and office.ears.states()[-1]["reports"] == 60)
    assert len(office.ears.states()) <= (time.monotonic() - began) / interval_s + 2


async def test_an_interval_of_0_publishes_a_state_with_each_change(office: Office) -> None:
    await office.open(state_interval_s=0.0)
    for _ in range(5):
        await office.report()
    await until(lambda: len(office.ears.states()) >= 5)
    assert {one["reports"] for one in office.ears.states()} == {1, 2, 3, 4, 5}


async def test_a_board_is_told_at_its_first_report_that_it_has_no_codes(office: Office) -> None:
    await office.open()
    await office.report(rev=0)
    await until(lambda: office.ears.desired())
    assert office.ears.desired() == [
        {"rev": 0, "board": "1953", "reset_id": None, "blocked": False, "rentals": []}
    ]


# Time


async def test_a_rental_expires_on_time_while_its_board_is_away(office: Office) -> None:
    soon, later = rental(2, left_s=1.0), rental(5)
    await keep(office.store, known_board(soon, later))
    await office.open()
    assert [one["rev"] for one in office.ears.desired()] == [3]
    await until(lambda: office.ears.facts("expired"))
    assert now() >= soon.expires_at
    assert office.ears.facts("expired") == [{"board": "1953", "rental": "rental-2", "cell": 2}]
    await eventually(office.has("rentals", "rental-2", status="expired", ended_at=soon.expires_at))
    assert (await office.document("rentals", "rental-5"))["status"] == "active"
    assert list((await office.document("boards", "1953"))["rentals"]) == ["5"]
    last = office.ears.desired()[-1]
    assert (last["rev"], [one["cell"] for one in last["rentals"]]) == (4, [5])
    await until(lambda: office.ears.states()[-1]["busy"] == [5])


async def test_a_board_that_says_nothing_for_too_long_is_offline_until_it_reports(
    office: Office,
) -> None:
    await office.open(offline_after_s=0.4)
    at = now()
    await office.report(at=at)
    await until(lambda: office.ears.facts("offline"))
    assert office.ears.facts("offline") == [{"board": "1953", "last_seen": rfc3339(at)}]
    await until(lambda: office.ears.on(STATUS) == [b"online", b"offline"])
    assert not office.ears.states()[-1]["online"]
    await office.report()
    await until(lambda: office.ears.on(STATUS)[:3] == [b"online", b"offline", b"online"])
    assert len(office.ears.facts("online")) == 2


async def test_silence_counts_only_from_when_the_domain_listens(office: Office) -> None:
    began = now()
    await keep(office.store, known_board(online=True))
    await office.open(offline_after_s=1.0)
    assert office.ears.on(STATUS) == [b"online"]
    await until(lambda: office.ears.events("offline"))
    said = parse_time(office.ears.events("offline")[0].time)
    assert said - began >= timedelta(seconds=1)


async def test_a_report_of_a_backlog_makes_no_board_offline_before_the_rest_of_it_came(
    office: Office,
) -> None:
    await office.open(offline_after_s=0.6)
    await office.report()
    await until(lambda: office.ears.events("offline"))  # it has listened for so long by now
    began = now()
    await office.report(board="b", at=began - timedelta(minutes=10))
    await until(lambda: office.ears.events("offline", "b"))
    said = parse_time(office.ears.events("offline", "b")[0].time)
    assert said - began >= timedelta(seconds=0.6)


async def test_silence_does_not_count_while_the_broker_is_away(
    office: Office, mosquitto: Part
) -> None:
    await office.open(offline_after_s=0.6)
    began = now()
    await office.report()
    await eventually(office.has("boards", "1953", outgoing=""))
    mosquitto.kill()
    await until(lambda: now() - began > timedelta(seconds=2))
    found = await office.document("boards", "1953")
    assert (found["online"], found["outgoing"]) == (True, "")


# Dead letters


async def test_a_dead_letter_is_kept(office: Office) -> None:
    await office.open()
    letter = DeadLetter(
        id="l1",
        reason="no ID",
        time=rfc3339(now()),
        source=EDGE,
        peer="127.0.0.1:7",
        size=3,
        hex="41436f",
        text="ACo",
    )
    for _ in range(2):
        await office.operator.publish(TOPICS.dead("locker"), encode(letter))
    office.domain.bus.dead_letter("locker", "the last", b"")
    await eventually(buried(office, 2))
    found = await office.document("dead", "l1")
    assert is_time(found["at"])
    assert found["at"] == parse_time(letter.time)
    assert (found["reason"], found["peer"], found["hex"]) == ("no ID", "127.0.0.1:7", "41436f")


async def test_nonsense_among_dead_letters_is_kept_and_makes_no_more_of_them(
    office: Office,
) -> None:
    await office.open()
    letter = {"id": "x", "reason": "r", "time": rfc3339(now()), "source": "s", "size": 1, "hex": ""}
    nonsense = [
        b"nonsense",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id": 7}',
        encode({**letter, "time": "yesterday"}),
    ]
    for one in nonsense:
        await office.operator.publish(TOPICS.dead("locker"), one)
    impossible = encode({**letter, "size": 2**70})
    await office.operator.publish(TOPICS.dead("locker"), impossible)
    await eventually(buried(office, 7))
    office.domain.bus.dead_letter("locker", "the last", b"")
    await eventually(buried(office, 8))
    said = office.ears.on(TOPICS.dead("locker"))
    assert len(said) <= len(nonsense) + 1 + 2 + 1
    found = [one["hex"] for one in await office.documents("dead")]
    for one in (*nonsense, impossible):
        assert one[:1024].hex() in found
