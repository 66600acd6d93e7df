"""Events in JSON and in MessagePack, read by us and by another library."""

from __future__ import annotations

import base64
import json

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.forms import (
    BATCH_MSGPACK,
    JSON_FORM,
    MSGPACK_FORM,
    DataReader,
    Form,
    carries_nothing,
    decode_events,
    in_json,
    is_json,
    msgpack_batch,
)
from patchbay.messages import Event

forms = pytest.mark.parametrize("form", [JSON_FORM, MSGPACK_FORM])


class Said(msgspec.Struct):
    text: str
    raw: bytes


def event(form: Form, data: object, id: str = "1") -> bytes:
    raw = msgspec.Raw(form.encode(data))
    return form.encode(Event(id=id, source="s", type="patchbay.tiny.said", time="t", data=raw))


@forms
def test_an_event_and_a_batch_are_read_as_they_were_written(form: Form) -> None:
    one = event(form, Said("hello", b"\xff\x00"))
    many = form.batch([event(form, Said(str(n), b""), str(n)) for n in range(20)])
    reader = DataReader(Said)
    (read,) = decode_events(one, form.event_type)
    assert (read.id, read.type) == ("1", "patchbay.tiny.said")
    assert reader.read(read) == Said("hello", b"\xff\x00")
    events = decode_events(many, form.batch_type)
    assert [reader.read(each).text for each in events] == [str(n) for n in range(20)]


def test_another_messagepack_reads_ours() -> None:
    assert msgpack.unpackb(event(MSGPACK_FORM, Said("hello", b"\xff"))) == {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "patchbay.tiny.said",
        "time": "t",
        "data": {"text": "hello", "raw": b"\xff"},
    }


def test_we_read_another_messagepack() -> None:
    fields = {"specversion": "1.0", "id": "7", "source": "x", "type": "y", "time": "t"}
    payload = msgpack.packb([{**fields, "data": {"text": "a", "raw": b"b"}}])
    (read,) = decode_events(payload, BATCH_MSGPACK)
    assert DataReader(Said).read(read) == Said("a", b"b")


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_a_batch_of_any_size_is_an_array(count: int) -> None:
    assert msgpack.unpackb(msgpack_batch([b"\x01"] * count)) == [1] * count


@forms
def test_no_data_is_known_as_none(form: Form) -> None:
    (read,) = decode_events(event(form, None), form.event_type)
    assert bytes(read.data) == form.null
    assert carries_nothing(read)


@forms
def test_a_dead_letter_is_json_whatever_the_form(form: Form) -> None:
    (read,) = decode_events(event(form, Said("hello", b"\xff")), form.event_type)
    shown = json.loads(in_json(read))
    assert shown["data"] == {"text": "hello", "raw": base64.b64encode(b"\xff").decode()}


def test_data_that_is_none_is_shown_as_its_bytes() -> None:
    broken = Event(id="1", source="s", type="t", time="t", data=msgspec.Raw(b"\xc1"))
    assert json.loads(in_json(broken))["data"] == base64.b64encode(b"\xc1").decode()


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x91\x01", b"\x81\xa2id\xa11", b"{}", b"\xff" * 9]
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_events(payload, BATCH_MSGPACK)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=40))
def test_an_object_is_never_taken_for_the_other_form(value: dict[str, object]) -> None:
    if all(not isinstance(one, int) or -(2**63) <= one < 2**64 for one in value.values()):
        assert not is_json(msgspec.msgpack.encode(value))
    assert is_json(msgspec.json.encode(value))
