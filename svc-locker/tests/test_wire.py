"""The codec of ACon_V1.0: one table of frames and their bytes for both ways, then the rest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchbay_locker.wire import (
    MAX_LINE,
    MAX_MESSAGE,
    Answer,
    AnswerDecoder,
    Code,
    Decoder,
    LockerError,
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


def refusal(data: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        Decoder().feed(data)
    return caught.value


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


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


BAD_NUMBERS = ["", " ", "x", "-1", "+1", "1.0", "1 ", " 1", "0x1", "1_0", "²", "١", "１", "1" * 10]

BAD = {
    "no ID": [minimal("SEND=1"), minimal("ID=", "SEND=1"), minimal("id=1", "SEND=1"), minimal()],
    "no SEND": [minimal("ID=1"), minimal("ID=1", "SEND=")],
    "an ID that is too long or not printable": [
        minimal(f"ID={'1' * 129}", "SEND=1"),
        minimal("ID=1\t", "SEND=1"),
        minimal("ID=1\x00", "SEND=1"),
        minimal("ID=1\r1", "SEND=1"),
        minimal("ID=1\u2028", "SEND=1"),
    ],
    "the header is not ACon_V<major>.<minor>": [
        minimal("ID=1", "SEND=1", header=header)
        for header in (
            "ACon_V1",
            "ACon_V1.",
            "ACon_V.1",
            "ACon_V1.0 ",
            "ACon_V1.0.0",
            "ACon_V1.x",
            "ACon_V١.0",
            "ACon_V12345.0",
            " ACon_V1.0",
            "acon_V1.0",
            "Acon",
            "CLOSE",
            "\ufeffACon_V1.0",
        )
    ]
    + [b"CLOSE", b"CLOSE\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"ACon_X", b"\x00"],
    "a number that does not parse": [
        report(f"{name}={bad}")
        for name in ("CONNECTION", "WIFI_STATE", "GSM_STATE", "RESET", "COLS", "ROWS")
        for bad in BAD_NUMBERS
    ]
    + [minimal("ID=1", f"SEND={bad}") for bad in BAD_NUMBERS if bad and bad != "1" * 10]
    + [
        report(f"{name}={good}{bad}")
        for name in ("STATE", "BOX_ENG", "BOX_TO", "BOX_ACC")
        for good in ("", "1,")
        for bad in BAD_NUMBERS
        if good or bad
    ]
    + [report("BOX_ACC=,1"), report("BOX_ACC=1,,2"), report("BOX_ACC=1;2")],
    "a SEND of more than 18 digits": [
        minimal("ID=1", f"SEND={'1' * 19}"),
        minimal("ID=1", f"SEND={'0' * 19}"),
        minimal("ID=1", f"SEND={'1' * 4000}"),
    ],
    "a cell over 4096": [report("BOX_ACC=1,4097"), report("BOX_ENG=999999999")],
    "COLS or ROWS not from 1 to 8": [
        report(f"{name}={bad}") for name in ("COLS", "ROWS") for bad in ("0", "9", "00", "64")
    ],
    "an ACT_CON of other than 0 and 1": [
        report(f"ACT_CON={bad}") for bad in ("012", "01 ,1", "x", "٠١", "0;1", "-1")
    ],
    "a line without =": [report("STATE"), report("ACon_V1.0"), report(" "), report("\t")],
    "a key that is empty or not printable": [report("=1"), report("A\x00=1"), report("\x1b[2J=1")],
    "bytes that are not UTF-8": [
        b"ACon_V1.0\nID=\xff\nSEND=1\nCLOSE",
        b"ACon_V1.0\nID=1\nSEND=1\nX=\xc3\nCLOSE",
        b"ACon_V1.0\nID=1\nSEND=1\nX=\xed\xa0\x80\nCLOSE",
        b"ACon_V1.0\xff\nID=1\nSEND=1\nCLOSE",
    ],
    "a line over 4 KiB": [
        report("X=" + "1" * (MAX_LINE - 1)),
        report("BOX_ACC=" + "1," * 2100 + "1"),
        b"ACon_V1.0\nID=1\nSEND=1\nX=" + b"1" * MAX_LINE,
        b"ACon_V1.0\nID=1\nSEND=1\nX=" + b"\r" * MAX_LINE,
        b"ACon_V1.0" + b"0" * MAX_LINE,
    ],
    "a message over 64 KiB": [
        report(*["X=" + "1" * 1000] * 66),
        report(*["X=" + "1" * 1000] * 66).removesuffix(b"CLOSE\n"),
        b"ACon_V1.0\n" + b"\n" * MAX_MESSAGE,
    ],
}


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        pytest.param(reason, data, id=f"{reason} {number}")
        for reason, datas in BAD.items()
        for number, data in enumerate(datas)
    ],
)
class TestBadInput:
    def test_it_is_refused_with_its_reason(self, reason: str, data: bytes) -> None:
        assert refusal(data).reason == reason

    def test_messages_before_it_are_delivered(self, reason: str, data: bytes) -> None:
        error = refusal(WORKED + b"\r\n" + WORKED + data)
        assert error.reason == reason
        assert error.before == [only(WORKED)] * 2
        assert error.original == data[:1024]

    def test_it_is_refused_in_pieces_too(self, reason: str, data: bytes) -> None:
        for size in (1, 7, 4096):
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            frames, error = read(Decoder, chunks)
            assert frames == []
            assert error is not None

    def test_nothing_is_read_after_it(self, reason: str, data: bytes) -> None:
        decoder = Decoder()
        with pytest.raises(WireError):
            decoder.feed(WORKED + data)
        with pytest.raises(WireError) as again:
            decoder.feed(WORKED)
        assert again.value.reason == reason
        assert again.value.before == []


BAD_ANSWERS = {
    "a code that is not (cell,code,minutes)": ["BOX_ENG=2", "BOX_ENG=(2,14x2,1)", "BOX_ENG=(1,2)"],
    "a line without =": ["RESET"],
    "a number that does not parse": ["RESET=x", "STATE=-3"],
}


@pytest.mark.parametrize("reason", BAD_ANSWERS)
def test_a_bad_answer_is_refused(reason: str) -> None:
    for line in BAD_ANSWERS[reason]:
        with pytest.raises(WireError) as caught:
            AnswerDecoder().feed(report(line))
        assert caught.value.reason == reason


def test_an_answer_may_say_what_this_version_does_not_know() -> None:
    [answer] = AnswerDecoder().feed(report("LATER=1", "STATE=0,3"))
    assert answer == Answer("ACon_V1.0", "1953", "5", blocked=True)


def test_every_error_is_a_locker_error() -> None:
    assert issubclass(WireError, LockerError)


def test_a_line_of_exactly_4_kib_is_taken() -> None:
    line = "X=" + "1" * (MAX_LINE - 2)
    for data in (report(line), report(line).replace(b"\n", b"\r\n")):
        whole = read(Decoder, [data])
        assert whole[1] is None
        assert read(Decoder, [data[at : at + 1] for at in range(len(data))]) == whole


def test_a_message_of_exactly_64_kib_is_taken_and_a_byte_more_is_not() -> None:
    lines = [f"X{n}=" + "1" * 1000 for n in range(64)]
    missing = MAX_MESSAGE - len(report(*lines, "X=").rstrip())
    full = report(*lines, "X=" + "1" * missing).rstrip()
    assert len(full) == MAX_MESSAGE
    assert len(only(full).extra) == 65
    assert read(Decoder, [full[:-1], full[-1:]])[1] is None
    over = report(*lines, "X=" + "1" * (missing + 1))
    assert refusal(over).reason == "a message over 64 KiB"


def test_many_messages_of_more_than_64_kib_together_are_taken() -> None:
    data = WORKED * 1000
    assert len(data) > 2 * MAX_MESSAGE
    assert len(Decoder().feed(data)) == 1000


def test_a_message_that_never_ends_holds_no_more_than_64_kib() -> None:
    frames, error = read(Decoder, [b"ACon_V1.0\n"] + [b"X=1\n"] * MAX_MESSAGE)
    assert frames == []
    assert error is not None
    assert error.reason == "a message over 64 KiB"


def test_line_ends_without_end_hold_nothing() -> None:
    decoder = Decoder()
    for _ in range(100):
        assert decoder.feed(b"\r\n" * 10_000) == []
    assert decoder.feed(WORKED) == [only(WORKED)]


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12
).filter(str.isprintable)
cells = st.lists(st.integers(1, 4096), unique=True, max_size=12).map(tuple)
small = st.integers(0, 99)
groups = (
    st.lists(st.text("01", max_size=8), max_size=8).map(tuple).filter(lambda found: found != ("",))
)
keys = texts.filter(lambda key: "=" not in key and not key.startswith("CLOSE")).map("_".__add__)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    send = draw(st.integers(0, 10**15))
    return Request(
        f"ACon_V{draw(small)}.{draw(small)}",
        draw(texts),
        send,
        "0" * draw(st.integers(0, 2)) + str(send),
        draw(small),
        draw(small),
        draw(small),
        draw(st.booleans()),
        draw(st.lists(small, max_size=4).map(tuple)),
        draw(st.integers(0, 8)),
        draw(st.integers(0, 8)),
        draw(groups),
        draw(cells),
        draw(cells),
        draw(cells),
        draw(st.dictionaries(keys, texts, max_size=3)),
    )


codes = st.builds(Code, st.integers(0, 4096), st.text("0123456789", min_size=1, max_size=32), small)
answers = st.builds(
    Answer,
    st.just("ACon_V1.0"),
    texts,
    st.integers(0, 10**15).map(str),
    st.booleans(),
    st.booleans(),
    st.lists(codes, max_size=5).map(tuple),
)
line_ends = st.sampled_from([b"\r\n", b"\n"])


@settings(deadline=None)
@given(requests(), line_ends, st.sampled_from([b"", b"\n", b"\r\n"]))
def test_a_request_that_is_written_reads_the_same(
    request_: Request, line_end: bytes, end: bytes
) -> None:
    assert Decoder().feed(encode_request(request_, line_end=line_end, end=end)) == [request_]


@settings(deadline=None)
@given(answers)
def test_an_answer_that_is_written_reads_the_same(answer: Answer) -> None:
    assert AnswerDecoder().feed(encode(answer)) == [answer]


@settings(deadline=None)
@given(st.lists(requests(), max_size=4), line_ends, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_requests_gives_the_same_frames(
    sent: list[Request], line_end: bytes, places: list[int]
) -> None:
    stream = b"".join(encode_request(one, line_end=line_end) for one in sent)
    assert read(Decoder, cut(stream, places)) == (sent, None)


@settings(deadline=None)
@given(st.lists(answers, max_size=4), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_answers_gives_the_same_frames(sent: list[Answer], places: list[int]) -> None:
    stream = b"".join(map(encode, sent))
    assert read(AnswerDecoder, cut(stream, places)) == (sent, None)


rubbish = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(WORKED_LINES), max_size=12).map(b"\n".join),
    st.lists(
        st.sampled_from([WORKED, *WORKED_LINES, b"\r\n", b"\n", b"=", b",", b"\xff", b"CLO", b"SE"])
    ).map(b"".join),
)


@settings(deadline=None)
@given(rubbish, st.sampled_from([Decoder, AnswerDecoder]), st.lists(st.integers(0, 999)))
def test_any_bytes_give_frames_or_a_wire_error(
    data: bytes, kind: AnyDecoder, places: list[int]
) -> None:
    whole, whole_error = read(kind, [data])
    split, split_error = read(kind, cut(data, places))
    assert whole == split
    assert (whole_error and whole_error.reason) == (split_error and split_error.reason)


@settings(deadline=None)
@given(st.integers(0, len(WORKED) - 1), st.integers(0, 255))
def test_a_byte_gone_wrong_gives_a_frame_or_a_wire_error(place: int, byte: int) -> None:
    read(Decoder, [WORKED[:place] + bytes([byte]) + WORKED[place + 1 :]])
