"""What the frames of the root mean, and what becomes of those that mean nothing."""

from __future__ import annotations

import pytest

from patchbay_mesh.wire.content import (
    MESSAGE_TYPES,
    Content,
    Data,
    Members,
    Passed,
    Value,
    data_frame,
    message_frame,
    network_frame,
    parse,
    said,
)
from patchbay_mesh.wire.uart import Frame, WireError

UUID = bytes(range(16))


def test_data_is_its_values() -> None:
    frame = Frame(5, b"[D]", bytes.fromhex("02 47505306 02f001be9200 52415703 fffefa"))
    values = (Value(b"GPS", bytes.fromhex("02f001be9200")), Value(b"RAW", b"\xff\xfe\xfa"))
    assert parse(frame) == Data(5, values)
    assert data_frame(5, values) == frame


def test_data_without_values_is_a_word_all_the_same() -> None:
    assert parse(Frame(5, b"[D]", b"\x00")) == Data(5, ())


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x01", b"\x01GPS", b"\x01GPS\x06\x01\x02", b"\x02GPS\x01x", b"\x01GPS\x01xy"],
)
def test_data_that_does_not_fit_is_refused_and_never_cut(payload: bytes) -> None:
    with pytest.raises(WireError):
        parse(Frame(5, b"[D]", payload))


def test_the_root_says_who_is_in_the_mesh() -> None:
    assert parse(Frame(7, b"NOD", UUID)) == Members(((7, UUID),))
    frame = network_frame(0, [(7, UUID), (8, UUID)])
    assert frame == Frame(0, b"NET", b"\x02\x00\x07" + UUID + b"\x00\x08" + UUID)
    assert parse(frame) == Members(((7, UUID), (8, UUID)))


@pytest.mark.parametrize(
    ("type", "payload"),
    [(b"NOD", b""), (b"NOD", UUID + b"x"), (b"NET", b""), (b"NET", b"\x02\x00\x07" + UUID)],
)
def test_members_that_do_not_fit_are_refused(type: bytes, payload: bytes) -> None:
    with pytest.raises(WireError):
        parse(Frame(7, type, payload))


@pytest.mark.parametrize("type", [b"[M]", b"RST", b"<Q>", b"XYZ", b"R", b""])
def test_everything_else_is_passed_on_as_it_is(type: bytes) -> None:
    frame = Frame(5, type, b"" if len(type) < 3 else b"\x09short")
    assert parse(frame) == Passed(frame)


def test_a_new_message_type_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def temperature(frame: Frame) -> Content:
        return Data(frame.node, (Value(b"TMP", frame.payload),))

    monkeypatch.setitem(MESSAGE_TYPES, b"[T]", temperature)
    assert parse(Frame(5, b"[T]", b"\x15")) == Data(5, (Value(b"TMP", b"\x15"),))


def test_what_was_said_is_a_message_without_its_length() -> None:
    frame = message_frame(0xFE, b"hello")
    assert frame == Frame(0xFE, b"[M]", b"\x05hello")
    assert said(frame.type, frame.payload) == b"hello"
    assert said(b"[M]", b"\x09hello") == b"\x09hello"
    assert said(b"XYZ", b"\x05hello") == b"\x05hello"


def test_what_no_frame_holds_is_not_written() -> None:
    with pytest.raises(WireError):
        data_frame(5, [Value(b"GPS", b"x" * 256)])
    with pytest.raises(WireError):
        data_frame(5, [Value(b"GP", b"x")])
    with pytest.raises(WireError):
        message_frame(5, b"x" * 256)
