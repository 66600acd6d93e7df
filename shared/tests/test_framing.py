"""Splitters: any split of the stream gives the same frames, and a limit holds to the byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.framing import Delimited, FrameTooLong, LengthPrefixed

LIMIT = 8


class Splitter(Protocol):
    def feed(self, data: bytes) -> list[bytes]: ...


def split(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def fed(splitter: Splitter, parts: list[bytes]) -> tuple[list[bytes], bool]:
    """All frames, and whether one was too long."""
    frames: list[bytes] = []
    for part in parts:
        try:
            frames += splitter.feed(part)
        except FrameTooLong as error:
            return [*frames, *error.before], True
    return frames, False


KINDS: dict[str, Callable[[], Splitter]] = {
    "lines": lambda: Delimited(LIMIT),
    "two bytes": lambda: Delimited(LIMIT, b"\r\n"),
    "aa": lambda: Delimited(LIMIT, b"aab"),
    "length": lambda: LengthPrefixed(LIMIT),
    "little": lambda: LengthPrefixed(LIMIT, 1, "little", inclusive=True),
}


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_any_split_gives_the_same_frames(kind: str, data: st.DataObject) -> None:
    stream = data.draw(st.binary() | st.text("ab\r\n\0\x02", max_size=60).map(str.encode))
    places = data.draw(st.lists(st.integers(0, 200)))
    assert fed(KINDS[kind](), split(stream, places)) == fed(KINDS[kind](), [stream])


@given(st.lists(st.binary(max_size=LIMIT).filter(lambda one: b"\n" not in one)))
def test_what_is_joined_by_delimiters_comes_apart_again(frames: list[bytes]) -> None:
    assert Delimited(LIMIT).feed(b"".join(one + b"\n" for one in frames)) == frames


@given(st.lists(st.binary(max_size=LIMIT)), st.booleans())
def test_what_has_its_length_before_it_comes_apart_again(
    frames: list[bytes], inclusive: bool
) -> None:
    own = 2 if inclusive else 0
    stream = b"".join((len(one) + own).to_bytes(2) + one for one in frames)
    assert LengthPrefixed(LIMIT, inclusive=inclusive).feed(stream) == frames


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_frame_may_have_its_limit_and_not_one_byte_more(ending: bytes) -> None:
    assert Delimited(LIMIT, ending).feed(b"x" * LIMIT + ending) == [b"x" * LIMIT]
    with pytest.raises(FrameTooLong, match="at most 8 bytes") as caught:
        Delimited(LIMIT, ending).feed(b"one" + ending + b"x" * (LIMIT + 1) + ending)
    assert (caught.value.before, caught.value.original) == ([b"one"], b"x" * LIMIT)


def test_a_frame_without_an_end_is_refused_before_it_takes_room() -> None:
    splitter = Delimited(LIMIT)
    for _ in range(LIMIT):
        assert splitter.feed(b"x") == []
    with pytest.raises(FrameTooLong):
        splitter.feed(b"x")


def test_a_length_over_the_limit_or_below_its_own_is_refused() -> None:
    with pytest.raises(FrameTooLong):
        LengthPrefixed(LIMIT).feed(b"\x00\x09")
    with pytest.raises(FrameTooLong):
        LengthPrefixed(LIMIT, inclusive=True).feed(b"\x00\x01")


def test_a_stream_byte_by_byte_costs_no_more_than_its_length() -> None:
    """A splitter that looked at everything again for each byte would take minutes for this."""
    prefixed = LengthPrefixed(1_000_000, 4)
    assert prefixed.feed((1_000_000).to_bytes(4)) == []
    for splitter in (Delimited(1_000_000), prefixed):
        for _ in range(200_000):
            assert splitter.feed(b"x") == []
