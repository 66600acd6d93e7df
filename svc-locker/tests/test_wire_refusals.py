"""What the codec of ACon_V1.0 refuses, and how much it takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from patchbay_locker.wire import (
    MAX_LINE,
    MAX_MESSAGE,
    AnswerDecoder,
    Decoder,
    LockerError,
    Request,
    WireError,
)

GOOD = b"ACon_V1.0\r\nID=1953\r\nSEND=4\r\nBOX_ACC=1,54,43\r\nCLOSE"


def minimal(*lines: str, header: str = "ACon_V1.0") -> bytes:
    """A request of one line end kind whose only good lines are those given."""
    return "\n".join([header, *lines, "CLOSE\n"]).encode()


def report(*lines: str) -> bytes:
    return minimal("ID=1953", "SEND=5", *lines)


def only(data: bytes) -> Request:
    [request] = Decoder().feed(data)
    return request


def refusal(data: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        Decoder().feed(data)
    return caught.value


def read(chunks: Sequence[bytes]) -> tuple[list[Request], WireError | None]:
    """All frames of a stream that comes in these pieces, and the error that ended it."""
    decoder = Decoder()
    frames: list[Request] = []
    for chunk in chunks:
        try:
            frames += decoder.feed(chunk)
        except WireError as error:
            return frames + error.before, error
    return frames, None


BAD_NUMBERS = [" ", "x", "-1", "+1", "1.0", "1 ", " 1", "0x1", "1_0", "²", "١", "１", "1" * 10]

BAD = {
    "no ID": [minimal("SEND=1"), minimal("ID=", "SEND=1"), minimal("id=1", "SEND=1"), minimal()],
    "an ID that stands for something else": [
        minimal(f"ID={id}", "SEND=1") for id in ("all", "ALL", "All")
    ],
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
            " \ufeffACon_V1.0",
        )
    ]
    + [b"CLOSE", b"CLOSE\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"ACon_X", b"\x00"],
    "a number that does not parse": [
        report(f"{name}={bad}")
        for name in ("CONNECTION", "WIFI_STATE", "GSM_STATE", "RESET", "COLS", "ROWS")
        for bad in BAD_NUMBERS
    ]
    + [minimal("ID=1", f"SEND={bad}") for bad in BAD_NUMBERS if bad not in ("-1", "1" * 10)]
    + [minimal("ID=1", f"SEND={bad}") for bad in ("-", "--1", "-0", "-1.0", "-2147483649")]
    + [
        report(f"{name}={good}{bad}")
        for name in ("STATE", "BOX_ENG", "BOX_TO", "BOX_ACC")
        for good in ("", "1,")
        for bad in BAD_NUMBERS
    ]
    + [
        report("BOX_ACC=,1"),
        report("BOX_ACC=1,,2"),
        report("BOX_ACC=1,,"),
        report("BOX_ACC=,"),
        report("BOX_ACC=1;2"),
    ],
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
        error = refusal(GOOD + b"\r\n" + GOOD + data)
        assert error.reason == reason
        assert error.before == [only(GOOD)] * 2
        assert error.original == data[:1024]

    def test_it_is_refused_in_pieces_too(self, reason: str, data: bytes) -> None:
        for size in (1, 7, 4096):
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            frames, error = read(chunks)
            assert frames == []
            assert error is not None

    def test_nothing_is_read_after_it(self, reason: str, data: bytes) -> None:
        decoder = Decoder()
        with pytest.raises(WireError):
            decoder.feed(GOOD + data)
        with pytest.raises(WireError) as again:
            decoder.feed(GOOD)
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


def test_every_error_is_a_locker_error() -> None:
    assert issubclass(WireError, LockerError)


def test_a_line_of_exactly_4_kib_is_taken() -> None:
    line = "X=" + "1" * (MAX_LINE - 2)
    for data in (report(line), report(line).replace(b"\n", b"\r\n")):
        whole = read([data])
        assert whole[1] is None
        assert read([data[at : at + 1] for at in range(len(data))]) == whole


def test_a_message_of_exactly_64_kib_is_taken_and_a_byte_more_is_not() -> None:
    lines = [f"X{n}=" + "1" * 1000 for n in range(64)]
    missing = MAX_MESSAGE - len(report(*lines, "X=").rstrip())
    full = report(*lines, "X=" + "1" * missing).rstrip()
    assert len(full) == MAX_MESSAGE
    assert len(only(full).extra) == 65
    assert read([full[:-1], full[-1:]])[1] is None
    over = report(*lines, "X=" + "1" * (missing + 1))
    assert refusal(over).reason == "a message over 64 KiB"


def test_many_messages_of_more_than_64_kib_together_are_taken() -> None:
    data = GOOD * 3000
    assert len(data) > 2 * MAX_MESSAGE
    assert len(Decoder().feed(data)) == 3000


def test_a_message_that_never_ends_holds_no_more_than_64_kib() -> None:
    frames, error = read([b"ACon_V1.0\n"] + [b"X=1\n"] * MAX_MESSAGE)
    assert frames == []
    assert error is not None
    assert error.reason == "a message over 64 KiB"


def test_line_ends_without_end_hold_nothing() -> None:
    decoder = Decoder()
    for _ in range(100):
        assert decoder.feed(b"\r\n" * 10_000) == []
    assert decoder.feed(GOOD) == [only(GOOD)]
