"""The envelope, the small messages and the times."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.errors import Rejected
from patchbay.messages import (
    Ack,
    AckRanges,
    Event,
    answer,
    batch,
    decode_events,
    encode,
    event_type,
    new_event,
    new_id,
    now,
    parse_time,
    refusal,
    rfc3339,
)

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
REPORT = new_event(
    id="1953:4:17",
    source="locker-edge-pi1",
    type=event_type("locker", "report"),
    subject="1953",
    time=rfc3339(MOMENT),
    sequence=4711,
    epoch="e1",
    data={"send": 17, "text": "등"},
)


def test_an_event_is_a_structured_cloudevent() -> None:
    assert json.loads(REPORT) == {
        "specversion": "1.0",
        "id": "1953:4:17",
        "source": "locker-edge-pi1",
        "type": "patchbay.locker.report",
        "subject": "1953",
        "time": "2026-01-02T03:04:05.678Z",
        "sequence": 4711,
        "epoch": "e1",
        "data": {"send": 17, "text": "등"},
    }


def test_an_event_without_sequence_has_neither_it_nor_an_epoch() -> None:
    event = json.loads(new_event(id="1", source="s", type="t", data=None))
    assert set(event) == {"specversion", "id", "source", "type", "time", "data"}
    assert event["data"] is None


def test_an_event_without_a_time_is_of_now() -> None:
    before = now()
    [event] = decode_events(new_event(id="1", source="s", type="t", data=None))
    assert before <= parse_time(event.time) <= now()


def test_an_event_that_is_written_reads_the_same() -> None:
    [event] = decode_events(REPORT)
    assert (event.id, event.source, event.sequence, event.epoch) == (
        *("1953:4:17", "locker-edge-pi1"),
        *(4711, "e1"),
    )
    assert json.loads(bytes(event.data)) == {"send": 17, "text": "등"}
    assert encode(event) == REPORT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.text(min_size=1), json_values, st.integers(0, 2**60)), max_size=4))
def test_a_batch_that_is_written_reads_the_same(some: list[tuple[str, Any, int]]) -> None:
    bodies = [
        new_event(id=id, source="s", type="t", sequence=sequence, data=data)
        for id, data, sequence in some
    ]
    events = decode_events(batch(bodies))
    assert [(event.id, event.sequence) for event in events] == [(id, n) for id, _, n in some]
    assert [msgspec.json.decode(event.data) for event in events] == [data for _, data, _ in some]


def test_fields_of_other_peoples_cloudevents_are_ignored() -> None:
    foreign = b'{"specversion":"1.0","id":"1","source":"s","type":"t","time":"x","dataschema":"y"}'
    [event] = decode_events(foreign)
    assert event == Event(id="1", source="s", type="t", time="x", data=event.data)
    assert bytes(event.data) == b"null"


GARBAGE = {
    "nothing": b"",
    "no JSON": b"{",
    "bytes": b"\xff\xfe",
    "a number": b"17",
    "null": b"null",
    "text": b'"specversion"',
    "no envelope": b'{"minutes": 60}',
    "another version": REPORT.replace(b'"1.0"', b'"0.3"'),
    "no id": REPORT.replace(b'"id"', b'"ID"'),
    "no time": REPORT.replace(b'"time"', b'"at"'),
    "a sequence that is text": REPORT.replace(b"4711", b'"4711"'),
    "something after it": REPORT + b"x",
    "a batch of numbers": b"[1, 2]",
    "a batch with one that is none": batch([REPORT, b"{}"]),
    "a batch cut short": batch([REPORT, REPORT])[:-20],
    "text that is no UTF-8": REPORT.replace(b"1953", b"\xff"),
    "a nesting too deep": REPORT.replace(b"17", b"[" * 50_000 + b"]" * 50_000),
}


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=list(GARBAGE))
def test_what_is_no_event_raises_a_decode_error(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_events(payload)


@given(st.binary(max_size=60))
def test_any_bytes_give_events_or_a_decode_error(payload: bytes) -> None:
    try:
        decode_events(payload)
    except msgspec.DecodeError:
        return


def test_an_acknowledgement_asks_for_nothing_unless_it_says_so() -> None:
    assert json.loads(encode(Ack("e1", 4711))) == {
        "epoch": "e1",
        "upto": 4711,
        "nak": False,
        "time": 0.0,
        "over": False,
    }
    assert msgspec.json.decode(b'{"epoch": "e1", "upto": 3}', type=Ack) == Ack("e1", 3)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"epoch": "e", "upto": -1}',
        b'{"epoch": "e", "upto": 9007199254740993}',
        b'{"epoch": "e", "ranges": [[-100000000000, 0]]}',
        b'{"epoch": "e", "ranges": [[0, 1e30]]}',
        b'{"epoch": "e", "ranges": [' + b"[1, 1]," * 3_000 + b"[1, 1]]}",
    ],
)
def test_an_acknowledgement_out_of_bounds_is_a_decode_error(payload: bytes) -> None:
    kind = AckRanges if b"ranges" in payload else Ack
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(payload, type=kind)


def test_answers_say_whether_it_went_well() -> None:
    assert json.loads(answer()) == {"ok": True}
    assert json.loads(answer({"cell": 5})) == {"ok": True, "cell": 5}
    assert json.loads(refusal(Rejected("cell_busy", "cell 5 is rented"))) == {
        "ok": False,
        "error": {"code": "cell_busy", "message": "cell 5 is rented"},
    }


def test_ids_are_unique() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000


def test_now_is_in_utc_and_has_no_more_than_milliseconds() -> None:
    moment = now()
    assert moment.tzinfo is UTC
    assert moment.microsecond % 1000 == 0


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    kst = timezone(timedelta(hours=9))
    assert rfc3339(MOMENT.astimezone(kst)) == "2026-01-02T03:04:05.678Z"
    assert rfc3339(MOMENT.replace(microsecond=0)) == "2026-01-02T03:04:05.000Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T12:04:05.678+09:00",
        "2026-01-02 03:04:05.678000+00:00",
    ],
)
def test_any_spelling_of_a_time_is_the_same_moment(text: str) -> None:
    assert parse_time(text) == MOMENT
    assert rfc3339(parse_time(text)) == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00+23:59", "", "now", "17", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z"],
)
def test_a_text_that_names_no_moment_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_time(text)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 - zone follows
def test_a_time_that_is_written_reads_the_same_to_the_millisecond(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC, microsecond=naive.microsecond // 1000 * 1000)
    assert parse_time(rfc3339(moment)) == moment
