"""Where a JSON object ends, whatever the packets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_allocator.wire.json_objects import (
    MAX_DEPTH,
    MAX_OBJECT,
    MAX_ORIGINAL,
    Splitter,
    WireError,
    parse,
)

OBJECTS = [
    b"{}",
    b'{"a": 1}',
    b'{"a": {"b": [1, {"c": []}]}}',
    '{"name": "이름 }{ \U0001f600"}'.encode(),
    b'{"text": "a \\" } \\\\"}',
    b'{"text": "\\\\\\"{[", "b": "]"}',
    rb'{"name": "\uc774\ub984\ud83d\ude00"}',
]


def fed(pieces: list[bytes]) -> list[bytes]:
    splitter = Splitter()
    found = [one for piece in pieces for one in splitter.feed(piece)]
    splitter.finish()
    return found


@pytest.mark.parametrize("text", OBJECTS)
def test_an_object_is_found_whole_byte_by_byte_and_with_others_around_it(text: bytes) -> None:
    assert fed([text]) == [text]
    assert fed([text[n : n + 1] for n in range(len(text))]) == [text]
    assert fed([b" \r\n" + text + b"\t" + text + text + b"\n"]) == [text] * 3


def test_a_hangul_character_may_be_split_between_packets() -> None:
    text = '{"CustomerName": "이름"}'.encode()
    for cut in range(len(text)):
        assert fed([text[:cut], text[cut:]]) == [text]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=5),
    st.booleans(),
    st.data(),
)
def test_any_split_of_any_objects_gives_the_same_objects(
    values: list[dict[str, Any]], ascii_only: bool, data: st.DataObject
) -> None:
    texts = [json.dumps(value, ensure_ascii=ascii_only).encode() for value in values]
    space = data.draw(st.sampled_from([b"", b" ", b"\r\n\t "]))
    stream = space.join(texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(pieces) == texts
    assert [parse(text) for text in texts] == values


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_give_objects_or_the_one_error(pieces: list[bytes]) -> None:
    splitter = Splitter()
    for piece in pieces:
        caught: list[WireError] = []
        try:
            for text in splitter.feed(piece):
                assert text.startswith(b"{")
                parse(text)
        except WireError as error:
            caught.append(error)
        assert all(one.reason and len(one.original) <= MAX_ORIGINAL for one in caught)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"[1]", "not a JSON object"),
        (b"GET / HTTP/1.1\r\n", "not a JSON object"),
        (b'{"a": [}', "brackets that do not match"),
        (b'{"a": 1]', "brackets that do not match"),
        (b'{"a": ' * MAX_DEPTH + b"{", "an object deeper than 16"),
        (b'{"a": "' + b"x" * MAX_OBJECT, "an object over 64 KiB"),
        (b'{"a": "' + b"x" * MAX_OBJECT + b'"}', "an object over 64 KiB"),
    ],
)
def test_what_is_no_object_is_refused_for_good_after_what_came_before_it(
    stream: bytes, reason: str
) -> None:
    splitter = Splitter()
    with pytest.raises(WireError, match=reason) as caught:
        splitter.feed(b"{} {}" + stream)
    assert caught.value.before == [b"{}", b"{}"]
    with pytest.raises(WireError, match=reason):
        splitter.feed(b"{}")


def test_the_largest_and_the_deepest_object_are_taken() -> None:
    largest = b'{"a": "' + b"x" * (MAX_OBJECT - 9) + b'"}'
    deepest = b'{"a": ' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert len(largest) == MAX_OBJECT
    assert fed([largest]) == [largest]
    assert fed([deepest]) == [deepest]


@pytest.mark.parametrize("rest", [b"{", b'{"a": "}', b'{"a": "\\', '{"a": "이'.encode()[:-1]])
def test_an_object_that_is_unfinished_at_the_end_is_an_error(rest: bytes) -> None:
    splitter = Splitter()
    assert splitter.feed(b"{} " + rest) == [b"{}"]
    with pytest.raises(WireError, match="ended within an object") as caught:
        splitter.finish()
    assert caught.value.original == rest


@pytest.mark.parametrize("text", [b"{a: 1}", b'{"a": nope}', b'{"a": "\xff"}', b'{"a": "\\ud800"}'])
def test_what_is_not_sound_json_is_an_error(text: bytes) -> None:
    with pytest.raises(WireError, match="not sound JSON"):
        parse(text)


def test_bytes_are_looked_at_once() -> None:
    splitter = Splitter()
    splitter.feed(b'{"a": "' + b"x" * 60_000)
    seen = splitter._seen
    splitter.feed(b"y")
    assert splitter._seen == seen + 1 == 60_008


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("mark", [BOM, b"\0", b"\x1e", b"\x0c", b"\0" + BOM + b"\r\n"])
def test_marks_between_objects_that_can_mean_nothing_else_are_skipped(mark: bytes) -> None:
    stream = mark + b'{"a": 1}' + mark + b'{"b": 2}' + mark
    splitter = Splitter()
    assert splitter.feed(stream) == [b'{"a": 1}', b'{"b": 2}']
    splitter.finish()
    splitter = Splitter()
    objects = [one for byte in stream for one in splitter.feed(bytes([byte]))]
    assert objects == [b'{"a": 1}', b'{"b": 2}']
    splitter.finish()


def test_half_a_byte_order_mark_is_not_an_object() -> None:
    splitter = Splitter()
    assert splitter.feed(BOM[:2]) == []
    with pytest.raises(WireError):
        splitter.finish()
    with pytest.raises(WireError):
        splitter.feed(b"{")
