"""What holds for any frames, any bytes and any split of them, on the line of the root."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from patchbay_mesh.wire.content import Content, Data, Members, Passed, Value, data_frame, parse
from patchbay_mesh.wire.uart import (
    COMMANDS,
    MAX_FRAME,
    Command,
    CommandDecoder,
    Decoder,
    Frame,
    WireError,
    encode,
    encode_command,
)

addresses = st.integers(0, 0xFFFF)
xors = st.sampled_from([0xFA, 0xFF])
marks = st.lists(st.sampled_from([b"\xff", b"\xfe", b"\xfa", b"\x05", b"\x04", b"x"]), max_size=80)
some_bytes = st.binary(max_size=200) | marks.map(b"".join)
frames = st.builds(Frame, addresses, st.binary(min_size=3, max_size=3), some_bytes)
outside = some_bytes.map(lambda data: data.replace(b"\xff", b"").replace(b"\xfe", b""))
places = st.lists(st.integers(0, 100_000), max_size=6)
names = st.sampled_from(sorted(COMMANDS))
commands = st.builds(Command, names, addresses, st.binary(max_size=255)).map(
    lambda one: one if COMMANDS[one.name] else Command(one.name)
)


def cut(data: bytes, where: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in where), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(frames, xors)
def test_what_is_written_is_read(frame: Frame, xor: int) -> None:
    line = encode(frame, xor)
    assert line[:1] == b"\xff"
    assert line[-1:] == b"\xfe"
    assert b"\xff" not in line[1:]
    assert b"\xfe" not in line[:-1]
    assert Decoder(xor).feed(line) == [frame]


@given(st.lists(st.tuples(outside, frames)), places, xors)
def test_any_split_of_any_stream_gives_its_frames(
    stream: list[tuple[bytes, Frame]], where: list[int], xor: int
) -> None:
    line = b"".join(noise + encode(frame, xor) for noise, frame in stream)
    decoder = Decoder(xor)
    read = [frame for chunk in cut(line, where) for frame in decoder.feed(chunk)]
    assert read == [frame for _, frame in stream]
    assert decoder.skipped == sum(len(noise) for noise, _ in stream)
    assert decoder.dropped == 0


@given(st.lists(st.tuples(outside, frames), min_size=1), st.integers(0, 100_000), xors)
def test_who_comes_in_the_middle_reads_the_frames_that_begin_later_and_nothing_else(
    stream: list[tuple[bytes, Frame]], where: int, xor: int
) -> None:
    begins, line = [], b""
    for noise, frame in stream:
        begins.append(len(line) + len(noise))
        line += noise + encode(frame, xor)
    missed = where % len(line)
    later = [(at, frame) for at, (_, frame) in zip(begins, stream, strict=True) if at >= missed]
    decoder = Decoder(xor)
    assert decoder.feed(line[missed:]) == [frame for _, frame in later]
    assert decoder.skipped == len(line) - missed - sum(len(encode(one, xor)) for _, one in later)
    assert (decoder.dropped, decoder.unfinished) == (0, False)


@given(st.lists(some_bytes), places)
def test_any_bytes_give_frames_or_counts_whatever_the_split(
    parts: list[bytes], where: list[int]
) -> None:
    line = b"".join(parts)
    whole, split = Decoder(), Decoder()
    frames = whole.feed(line)
    assert [frame for chunk in cut(line, where) for frame in split.feed(chunk)] == frames
    assert (split.skipped, split.dropped) == (whole.skipped, whole.dropped)
    assert len(split._held or b"") <= 2 * MAX_FRAME
    for frame in frames:
        content_or_error(frame)


def content_or_error(frame: Frame) -> Content | None:
    try:
        return parse(frame)
    except WireError:
        return None


values = st.builds(Value, st.binary(min_size=3, max_size=3), st.binary(max_size=255))


@given(addresses, st.lists(values, max_size=12))
def test_values_that_are_written_are_read(node: int, some: list[Value]) -> None:
    assert parse(data_frame(node, some)) == Data(node, tuple(some))


@given(addresses, st.sampled_from([b"[D]", b"NOD", b"NET", b"RST"]), st.binary(max_size=100))
def test_any_payload_has_a_meaning_or_is_refused(node: int, type: bytes, payload: bytes) -> None:
    content = content_or_error(Frame(node, type, payload))
    assert content is None or isinstance(content, Data | Members | Passed)


@given(st.lists(commands), places)
def test_any_split_of_commands_gives_them(some: list[Command], where: list[int]) -> None:
    line = b"".join(encode_command(one) for one in some)
    decoder = CommandDecoder()
    assert [one for chunk in cut(line, where) for one in decoder.feed(chunk)] == some
