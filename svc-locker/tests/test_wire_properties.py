"""What holds for any frames, any bytes and any split of them, in the codec of ACon_V1.0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

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

REPORT = [
    b"ACon_V1.0",
    b"ID=1953",
    b"SEND=141349",
    b"RESET=1",
    b"STATE=0",
    b"COLS=8",
    b"ROWS=8",
    b"ACT_CON=01011011,11111111",
    b"BOX_ENG=2,5,8",
    b"BOX_ACC=1,54,43",
    b"CLOSE",
]
WHOLE = b"\r\n".join(REPORT)

AnyDecoder = type[Decoder] | type[AnswerDecoder]


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


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


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
    st.lists(st.sampled_from(REPORT), max_size=12).map(b"\n".join),
    st.lists(
        st.sampled_from([WHOLE, *REPORT, b"\r\n", b"\n", b"=", b",", b"\xff", b"CLO", b"SE"])
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
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_byte_gone_wrong_gives_a_frame_or_a_wire_error(place: int, byte: int) -> None:
    read(Decoder, [WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]])
