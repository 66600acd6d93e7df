"""The codec of ACon_V1.0: one table of frames and their bytes for both ways, then one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from patchbay_locker.wire import (
    Answer,
    AnswerDecoder,
    Code,
    Decoder,
    Request,
    WireError,
    encode,
    encode_request,
)

WORKED_LINES = [
    b"ACon_V1.0",
    b"ID=1953",
    b"SEND=141349",
    b"CONNECTION=1",
    b"WIFI_STATE=0",
    b"GSM_STATE=0",
    b"RESET=1",
    b"STATE=0",
    b"COLS=8",
    b"ROWS=8",
    b"ACT_CON=01011011,11111111,10110111,11111111,10011111,11111111,10110111,11111111",
    b"BOX_ENG=2,5,8,23,24,25",
    b"BOX_TO=33,34",
    b"BOX_ACC=1,54,43",
    b"CLOSE",
]
GROUPS = tuple(f"{row:08b}" for row in (0x5B, 0xFF, 0xB7, 0xFF, 0x9F, 0xFF, 0xB7, 0xFF))
WORKED = b"\r\n".join(WORKED_LINES)
WORKED_ANSWER = b"ACon_V1.0\nID=1953\nSEND=141349\nRESET=0\nSTATE=0\nCLOSE\n"

REQUESTS = {
    "the worked case": (
        Request(
            "ACon_V1.0",
            "1953",
            141349,
            "141349",
            connection=1,
            reset=True,
            state=(0,),
            cols=8,
            rows=8,
            act_con=GROUPS,
            box_eng=(2, 5, 8, 23, 24, 25),
            box_to=(33, 34),
            box_acc=(1, 54, 43),
        ),
        WORKED,
    ),
    "no cells, two states, SEND with zeros in front, another version and unknown keys": (
        Request(
            "ACon_V12.34",
            "плата 7",
            42,
            "0042",
            connection=2,
            wifi_state=2,
            gsm_state=3,
            state=(1, 2),
            cols=5,
            rows=6,
            act_con=("11111", "1"),
            extra={"VOLT": "12=4", "TEMP": ""},
        ),
        "ACon_V12.34\r\nID=плата 7\r\nSEND=0042\r\nCONNECTION=2\r\nWIFI_STATE=2\r\nGSM_STATE=3\r\n"
        "RESET=0\r\nSTATE=1,2\r\nCOLS=5\r\nROWS=6\r\nACT_CON=11111,1\r\nBOX_ENG=0\r\nBOX_TO=0\r\n"
        "BOX_ACC=0\r\nVOLT=12=4\r\nTEMP=\r\nCLOSE".encode(),
    ),
    "a matrix and a state that are not said": (
        Request("ACon_V1.0", "1", 0, "0"),
        b"ACon_V1.0\r\nID=1\r\nSEND=0\r\nCONNECTION=0\r\nWIFI_STATE=0\r\nGSM_STATE=0\r\nRESET=0\r\n"
        b"STATE=\r\nACT_CON=\r\nBOX_ENG=0\r\nBOX_TO=0\r\nBOX_ACC=0\r\nCLOSE",
    ),
}

ANSWERS = {
    "the worked case": (Answer("ACon_V1.0", "1953", "141349"), WORKED_ANSWER),
    "codes": (
        Answer("ACon_V1.0", "1953", "7", codes=(Code(2, "1492", 4800), Code(64, "007", 1))),
        b"ACon_V1.0\nID=1953\nSEND=7\nRESET=0\nSTATE=0\n"
        b"BOX_ENG=(2,1492,4800)\nBOX_ENG=(64,007,1)\nCLOSE\n",
    ),
    "reboot, blocked, another version": (
        Answer("ACon_V2.1", "плата", "0042", reset=True, blocked=True),
        "ACon_V2.1\nID=плата\nSEND=0042\nRESET=1\nSTATE=3\nCLOSE\n".encode(),
    ),
}

AnyDecoder = type[Decoder] | type[AnswerDecoder]
TABLE: list[Any] = [
    pytest.param(kind, frame, wire, id=f"{kind.__name__}: {name}")
    for kind, table in ((Decoder, REQUESTS), (AnswerDecoder, ANSWERS))
    for name, (frame, wire) in table.items()
]


def minimal(*lines: str, header: str = "ACon_V1.0") -> bytes:
    """A request of one line end kind whose only good lines are those given."""
    return "\n".join([header, *lines, "CLOSE\n"]).encode()


def report(*lines: str) -> bytes:
    return minimal("ID=1953", "SEND=5", *lines)


def read(kind: AnyDecoder, chunks: Sequence[bytes]) -> tuple[list[object], WireError | None]:
    """All frames of a stream that comes in these pieces, and the error that ended it."""
    decoder = kind()
    frames: list[object] = []
    for chunk in chunks:
        try:
            frames += decoder.feed(chunk)
        except WireError as error:
            return frames + error.before, error
    return frames, None


def only(data: bytes) -> Request:
    [request] = Decoder().feed(data)
    return request


@pytest.mark.parametrize(("kind", "frame", "wire"), TABLE)
class TestTable:
    def test_it_is_written_as_these_bytes(self, kind: AnyDecoder, frame: Any, wire: bytes) -> None:
        written = encode(frame) if isinstance(frame, Answer) else encode_request(frame)
        assert written == wire

    def test_it_is_read_from_one_piece(self, kind: AnyDecoder, frame: Any, wire: bytes) -> None:
        assert kind().feed(wire) == [frame]

    def test_it_is_read_byte_by_byte(self, kind: AnyDecoder, frame: Any, wire: bytes) -> None:
        assert read(kind, [bytes([byte]) for byte in wire]) == ([frame], None)

    def test_it_is_read_at_its_last_byte_and_not_before(
        self, kind: AnyDecoder, frame: Any, wire: bytes
    ) -> None:
        decoder = kind()
        complete = wire.rstrip(b"\n")
        assert decoder.feed(complete[:-1]) == []
        assert decoder.feed(complete[-1:]) == [frame]

    @pytest.mark.parametrize("more", [b"\n", b"\r\n\r\n", b"ACon_V1.0", b"\r\nACon_V1.0\r\nID="])
    def test_bytes_that_follow_do_not_change_it(
        self, kind: AnyDecoder, frame: Any, wire: bytes, more: bytes
    ) -> None:
        assert kind().feed(wire + more) == [frame]

    @pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b"\n\r\n\n"])
    def test_several_in_one_read_are_all_read(
        self, kind: AnyDecoder, frame: Any, wire: bytes, between: bytes
    ) -> None:
        assert kind().feed(between.join([wire] * 5)) == [frame] * 5

    def test_line_ends_may_be_of_either_kind(
        self, kind: AnyDecoder, frame: Any, wire: bytes
    ) -> None:
        plain = wire.replace(b"\r\n", b"\n")
        assert kind().feed(plain) == [frame]
        assert kind().feed(plain.replace(b"\n", b"\r\n")) == [frame]
        assert kind().feed(plain.replace(b"\n", b"\r\n", 3)) == [frame]


def test_the_worked_answer_is_52_bytes() -> None:
    request = only(WORKED)
    answer = encode(Answer(request.header, request.id, request.send_text))
    assert answer == WORKED_ANSWER
    assert len(answer) == 52


def test_a_close_split_across_packets_ends_the_message() -> None:
    decoder = Decoder()
    assert decoder.feed(WORKED[:-2]) == []
    assert WORKED[:-2].endswith(b"CLO")
    assert len(decoder.feed(b"SE")) == 1


def test_a_request_may_say_close_with_a_line_end() -> None:
    request = only(WORKED)
    assert encode_request(request, end=b"\r\n") == WORKED + b"\r\n"
    assert encode_request(request, line_end=b"\n") == WORKED.replace(b"\r\n", b"\n")


def test_close_completes_a_message_whatever_follows_it() -> None:
    frames, error = read(Decoder, [WORKED + b"D=1\r\nSTATE=0"])
    assert len(frames) == 1
    assert error is not None
    assert error.original.startswith(b"D=1")


def test_close_inside_a_line_is_text() -> None:
    assert only(report("NOTE=CLOSE", "XCLOSE=1")).extra == {"NOTE": "CLOSE", "XCLOSE": "1"}


def test_only_id_and_send_must_be_there() -> None:
    assert only(minimal("ID=a", "SEND=7")) == Request("ACon_V1.0", "a", 7, "7")


def test_empty_lines_within_a_message_are_skipped() -> None:
    assert only(b"ACon_V1.0\r\n\r\nID=a\n\nSEND=7\n\r\nCLOSE") == Request("ACon_V1.0", "a", 7, "7")


def test_a_key_said_twice_counts_as_said_last() -> None:
    request = only(minimal("ID=a", "SEND=1", "X=1", "ID=b", "SEND=2", "X=2"))
    assert (request.id, request.send, request.extra) == ("b", 2, {"X": "2"})


@pytest.mark.parametrize("nothing", ["", "0", "0,0"])
def test_zero_or_empty_lists_no_cells(nothing: str) -> None:
    request = only(report(f"BOX_ENG={nothing}", f"BOX_TO={nothing}", f"BOX_ACC={nothing}"))
    assert (request.box_eng, request.box_to, request.box_acc) == ((), (), ())


def test_zero_among_cells_is_no_cell_and_each_cell_counts_once() -> None:
    assert only(report("BOX_ACC=3,0,1,3")).box_acc == (3, 1)


def test_cells_need_not_be_in_the_matrix() -> None:
    request = only(report("COLS=5", "ROWS=6", "ACT_CON=11111111,1", "BOX_ACC=64,4096"))
    assert request.act_con == ("11111111", "1")
    assert request.box_acc == (64, 4096)


def test_groups_may_be_empty() -> None:
    assert only(report("ACT_CON=01,,1")).act_con == ("01", "", "1")


def test_reset_is_said_by_1_alone() -> None:
    assert [only(report(f"RESET={n}")).reset for n in "012"] == [False, True, False]


def test_a_send_of_18_digits_is_taken() -> None:
    assert only(minimal("ID=a", f"SEND={'9' * 18}")).send == 10**18 - 1


def test_an_id_of_128_characters_is_taken() -> None:
    assert only(minimal(f"ID={'ж' * 128}", "SEND=1")).id == "ж" * 128


def test_the_digest_tells_two_messages_of_one_send_apart() -> None:
    one, same, other = only(report("BOX_ACC=1")), only(report("BOX_ACC=1")), only(report())
    assert one.digest == same.digest
    assert one.digest != other.digest
    assert len(one.digest) == 8


def test_the_digest_is_the_same_in_every_process() -> None:
    assert only(WORKED).digest.hex() == "ebe198a6ea9d5b19"


def test_an_answer_may_say_what_this_version_does_not_know() -> None:
    [answer] = AnswerDecoder().feed(report("LATER=1", "STATE=0,3"))
    assert answer == Answer("ACon_V1.0", "1953", "5", blocked=True)
