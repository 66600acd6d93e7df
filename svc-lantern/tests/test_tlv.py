"""The lanterns' wire: one table of frames and bytes for reader and writer."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_lantern.wire.errors import WireError
from patchbay_lantern.wire.tlv import MAX_FRAME, MAX_VALUE, Decoder, Frame, encode

CASES = [
    (Frame(0x12), b"\x12\x00\x00"),
    (Frame(0x13), b"\x13\x00\x00"),
    (Frame(0x20, b"\xff\x00\x00"), b"\x20\x00\x03\xff\x00\x00"),
    (Frame(0x00, b"\x00"), b"\x00\x00\x01\x00"),
    (Frame(0xFF, b"\x12\x00\x00"), b"\xff\x00\x03\x12\x00\x00"),
    (Frame(0x21, b"x" * 256), b"\x21\x01\x00" + b"x" * 256),
    (Frame(0x21, b"x" * MAX_VALUE), b"\x21\xff\xff" + b"x" * MAX_VALUE),
]
every_case = pytest.mark.parametrize(("frame", "data"), CASES)
frames = st.lists(st.builds(Frame, st.integers(0, 255), st.binary(max_size=600)), max_size=20)


@every_case
def test_a_frame_is_written_as_the_table_says(frame: Frame, data: bytes) -> None:
    assert encode(frame) == data


@every_case
def test_a_frame_is_read_whole_and_with_what_follows(frame: Frame, data: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(data + b"\x12\x00") == [frame]
    assert decoder.feed(b"\x00") == [Frame(0x12)]


@every_case
def test_a_frame_is_read_byte_by_byte(frame: Frame, data: bytes) -> None:
    decoder = Decoder()
    found = [one for byte in data for one in decoder.feed(bytes([byte]))]
    assert found == [frame]


def test_the_seeds_bytes_are_read_as_its_struct_reads_them() -> None:
    data = b"\x20\x00\x03\xff\x00\x00"
    (frame,) = Decoder().feed(data)
    type, length, value = struct.unpack(">ch3s", data)
    assert (bytes([frame.type]), len(frame.value), frame.value) == (type, length, value)


@pytest.mark.parametrize(
    ("frame", "code"), [(Frame(256), "bad_type"), (Frame(1, b"x" * (MAX_VALUE + 1)), "too_long")]
)
def test_what_the_header_cannot_say_is_not_written(frame: Frame, code: str) -> None:
    with pytest.raises(WireError) as caught:
        encode(frame)
    assert caught.value.code == code


@given(frames, st.data())
def test_any_split_of_any_frames_gives_the_same_frames(
    sent: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    decoder = Decoder()
    pieces = (stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))
    assert [frame for piece in pieces for frame in decoder.feed(piece)] == sent


@given(st.lists(st.binary(max_size=2000), max_size=20))
def test_any_bytes_are_frames_and_little_is_held(pieces: list[bytes]) -> None:
    decoder = Decoder()
    found = [frame for piece in pieces for frame in decoder.feed(piece)]
    stream = b"".join(pieces)
    said = b"".join(map(encode, found))
    assert stream.startswith(said)
    assert len(stream) - len(said) < MAX_FRAME
