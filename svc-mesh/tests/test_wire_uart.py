"""The frames of the root and the commands to it, byte for byte, whole and in every split."""

from __future__ import annotations

import pytest

from patchbay_mesh.wire.uart import (
    MAX_FRAME,
    Command,
    CommandDecoder,
    Decoder,
    Frame,
    WireError,
    encode,
    encode_command,
    encode_raw,
)

GPS_AND_RAW = (
    Frame(5, b"[D]", bytes.fromhex("02 47505306 02f001be9200 52415703 fffefa")),
    bytes.fromhex("00055b445d0247505306 02f001be9200 52415703 fffefa"),
    bytes.fromhex("ff00055b445d024750530602f001be92005241570 3fa05fa04fa00fe".replace(" ", "")),
)
HELLO = (
    Frame(0x00FE, b"[M]", bytes.fromhex("0568656c6c6f")),
    bytes.fromhex("00fe5b4d5d0568656c6c6f"),
    bytes.fromhex("ff00fa045b4d5d0568656c6c6ffe"),
)
VECTORS = [GPS_AND_RAW, HELLO]
STREAM = b"boot log\r\n" + GPS_AND_RAW[2] + b"more\r\n" + HELLO[2] + b"!"
FRAMES = [GPS_AND_RAW[0], HELLO[0]]


def fed(*chunks: bytes, xor: int = 0xFA) -> tuple[list[Frame], int, int]:
    """The frames of a stream in these pieces, bytes skipped, and frames dropped."""
    decoder = Decoder(xor)
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return frames, decoder.skipped, decoder.dropped


@pytest.mark.parametrize(("frame", "content", "line"), VECTORS)
def test_a_frame_is_read_and_written_as_the_description_has_it(
    frame: Frame, content: bytes, line: bytes
) -> None:
    assert frame.content == content
    assert encode(frame) == line
    assert fed(line) == ([frame], 0, 0)


@pytest.mark.parametrize(("frame", "content", "line"), VECTORS)
def test_a_frame_is_read_in_every_split(frame: Frame, content: bytes, line: bytes) -> None:
    for a in range(len(line) + 1):
        for b in range(a, len(line) + 1):
            assert fed(line[:a], line[a:b], line[b:]) == ([frame], 0, 0)
    assert fed(*(line[at : at + 1] for at in range(len(line)))) == ([frame], 0, 0)


def test_what_stands_outside_of_frames_is_skipped_and_counted_in_every_split() -> None:
    for at in range(len(STREAM) + 1):
        assert fed(STREAM[:at], STREAM[at:]) == (FRAMES, 17, 0)


def test_any_escaped_byte_is_read_as_its_xor() -> None:
    for byte in range(256):
        escaped = bytes([0xFA, byte ^ 0xFA])
        if escaped[1] in (0xFE, 0xFF):  # these are marks wherever they stand
            continue
        frames, _, dropped = fed(b"\xff\x00\x01abc" + escaped + b"\xfe")
        assert (frames, dropped) == ([Frame(1, b"abc", bytes([byte]))], 0)


def test_an_escape_behind_an_escape_is_read_from_the_left() -> None:
    content = b"\x00\x01abc"
    assert fed(b"\xff" + content + b"\xfa\xfa\x05\xfe")[0] == [Frame(1, b"abc", b"\x00\x05")]
    assert fed(b"\xff" + content + b"\xfa\xfa\xfa\x05\xfe")[0] == [Frame(1, b"abc", b"\x00\xff")]


def test_later_firmware_escapes_with_another_xor() -> None:
    frame = Frame(0xFF, b"[M]", b"\xfa\xfe")
    line = encode(frame, 0xFF)
    assert line == bytes.fromhex("ff 00fa00 5b4d5d fa05 fa01 fe")
    assert fed(line, xor=0xFF) == ([frame], 0, 0)


def test_a_start_inside_a_frame_drops_what_came_before() -> None:
    line = b"\xff\x00\x07[D]\x01GP" + HELLO[2]
    for at in range(len(line) + 1):
        assert fed(line[:at], line[at:]) == ([HELLO[0]], 0, 1)


def test_starts_in_a_row_are_one_start() -> None:
    line = b"\xff\xff\xff" + HELLO[2]
    for at in range(len(line) + 1):
        assert fed(line[:at], line[at:]) == ([HELLO[0]], 0, 0)


def test_a_dangling_escape_drops_its_frame() -> None:
    line = b"\xff\x00\x05[M]\x01x\xfa\xfe" + HELLO[2]
    for at in range(len(line) + 1):
        assert fed(line[:at], line[at:]) == ([HELLO[0]], 0, 1)


@pytest.mark.parametrize("content", [b"", b"\x05"])
def test_a_frame_without_a_whole_address_is_dropped(content: bytes) -> None:
    assert fed(b"\xff" + content + b"\xfe" + HELLO[2]) == ([HELLO[0]], 0, 1)


@pytest.mark.parametrize(
    ("content", "frame"),
    [
        (b"\x00\x05", Frame(5, b"")),
        (b"\x00\x05R", Frame(5, b"R")),
        (b"\x00\x05RS", Frame(5, b"RS")),
        (b"\x00\x05RST", Frame(5, b"RST")),
    ],
)
def test_a_short_frame_is_a_frame(content: bytes, frame: Frame) -> None:
    assert fed(b"\xff" + content + b"\xfe") == ([frame], 0, 0)
    assert frame.content == content


def test_the_longest_frame_is_taken_and_a_longer_one_is_not_in_every_way() -> None:
    longest = Frame(1, b"[X]", b"\xfa" * (MAX_FRAME - 5))
    line, more = encode(longest), encode(Frame(1, b"[X]", b"x" * (MAX_FRAME - 4)))
    assert fed(line + HELLO[2]) == ([longest, HELLO[0]], 0, 0)
    for size in (1, 100, 4096, len(more)):
        chunks = [more[at : at + size] for at in range(0, len(more), size)]
        assert fed(*chunks, HELLO[2]) == ([HELLO[0]], 0, 1)


def test_a_line_that_has_lost_its_end_fills_no_memory() -> None:
    decoder = Decoder()
    decoder.feed(b"\xff")
    for _ in range(1000):
        assert decoder.feed(b"x" * 1000) == []
        assert len(decoder._held or b"") <= 2 * MAX_FRAME
    assert (decoder.dropped, decoder.skipped) == (1, 0)
    assert decoder.feed(b"\xfe" + HELLO[2]) == [HELLO[0]]
    assert (decoder.dropped, decoder.skipped) == (1, 0)


def test_after_a_flood_a_new_start_is_a_start() -> None:
    flood = b"\xff" + b"x" * 20_000
    assert fed(flood, HELLO[2]) == ([HELLO[0]], 0, 1)
    assert fed(flood + HELLO[2]) == ([HELLO[0]], 0, 1)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (Command(b"SEND-", 5, b"hi"), bytes.fromhex("53454e442d0005026869 0a")),
        (Command(b"SEND-", 5, b"a\nb"), b"SEND-\x00\x05\x03a\nb\n"),
        (Command(b"SEND-", 0xFFFE), b"SEND-\xff\xfe\x00\n"),
        (Command(b"BCAST", 0, b"all"), b"BCAST\x00\x00\x03all\n"),
        (Command(b"NINFO"), b"NINFO\n"),
        (Command(b"RST-R"), b"RST-R\n"),
        (Command(b"CLEAN"), b"CLEAN\n"),
    ],
)
def test_a_command_is_a_line_and_is_read_as_one_in_every_split(
    command: Command, line: bytes
) -> None:
    assert encode_command(command) == line
    stream = line + b"NINFO\n"
    for at in range(len(stream) + 1):
        decoder = CommandDecoder()
        read = decoder.feed(stream[:at]) + decoder.feed(stream[at:])
        assert read == [command, Command(b"NINFO")]


def test_a_command_is_a_frame_for_later_firmware() -> None:
    assert encode_command(Command(b"SEND-", 0xFE, b"hi"), "frame") == b"\xffSEND-\x00\xfa\x04hi\xfe"
    assert encode_command(Command(b"NINFO"), "frame") == b"\xffNINFO\xfe"
    assert encode_raw(b"STATE\xff", "frame", 0xFF) == b"\xffSTATE\xfa\x00\xfe"


def test_a_raw_command_goes_as_it_stands() -> None:
    assert encode_raw(b"XYZZYanything\n") == b"XYZZYanything\n\n"


@pytest.mark.parametrize(
    "command",
    [
        Command(b"SEND-", 5, b"x" * 256),
        Command(b"SEND-", 0x1_0000, b"x"),
        Command(b"SEND-", -1, b"x"),
        Command(b"NOPE-"),
    ],
)
def test_what_the_root_could_not_read_is_not_written(command: Command) -> None:
    with pytest.raises(WireError):
        encode_command(command)


def test_what_is_no_command_goes_up_to_the_end_of_its_line_and_the_next_is_read() -> None:
    decoder = CommandDecoder()
    assert decoder.feed(b"SEND-\x00\x05\x02hixNINFO\nNINFO\n") == [
        Command(b"SEND-\x00\x05\x02hixNINFO"),
        Command(b"NINFO"),
    ]


def test_a_command_without_an_end_fills_no_memory() -> None:
    decoder = CommandDecoder()
    for _ in range(100):
        assert decoder.feed(b"x" * 1000) == []
    assert len(decoder._held) <= MAX_FRAME
