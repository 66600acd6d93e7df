"""What the page's WebSocket says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_lantern.wire.errors import WireError
from patchbay_lantern.wire.page import Command, Decoder, Frame, Lanterns, encode

CASES: list[tuple[Frame, str]] = [
    (Command("COLOR", "ff0000"), '{"command":"COLOR","value":"ff0000"}'),
    (Command("ON"), '{"command":"ON","value":null}'),
    (Lanterns(3), '{"lanterns":3}'),
    (Lanterns(None), '{"lanterns":null}'),
]


@pytest.mark.parametrize(("frame", "message"), CASES)
def test_a_frame_is_written_and_read_as_the_table_says(frame: Frame, message: str) -> None:
    assert encode(frame) == message
    assert Decoder().feed(message) == [frame]


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "{}", '{"command":1}', '{"lanterns":true}', '{"lanterns":-1}', "[" * 5000],
)
def test_what_is_no_frame_is_refused(message: str) -> None:
    with pytest.raises(WireError):
        Decoder().feed(message)


@given(st.builds(Command, st.text(), st.none() | st.text()) | st.builds(Lanterns, st.integers(0)))
def test_any_frame_is_read_as_it_was_written(frame: Frame) -> None:
    if isinstance(frame, Lanterns) and frame.count is not None and frame.count > 2**53:
        frame = Lanterns(2**53)
    assert Decoder().feed(encode(frame)) == [frame]


@given(st.text())
def test_any_text_is_frames_or_refused(message: str) -> None:
    found: list[Frame] | WireError
    try:
        found = Decoder().feed(message)
    except WireError as error:
        found = error
    assert isinstance(found, list) or found.code in ("bad_json", "bad_message")
