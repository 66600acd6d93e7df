"""The combinators' wire."""

from __future__ import annotations

import json

import pytest

from patchbay_allocator.wire.combinator import (
    Answer,
    Decoder,
    Mix,
    MixDecoder,
    Refused,
    encode,
    encode_answer,
)
from patchbay_allocator.wire.json_objects import WireError

ID = "65a1f0c20000000000000001"

ID = "_id must be a text of 1 to 64 characters"


def test_a_job_is_written_with_the_seeds_keys_and_read_again() -> None:
    assert json.loads(encode(Mix(ID, "696969"))) == {"_id": ID, "code": "696969"}
    assert MixDecoder().feed(encode(Mix(ID, "696969")) * 2) == [Mix(ID, "696969")] * 2
    assert len(encode(Mix(ID, "696969"))) < 1024


@pytest.mark.parametrize("status", ["done", "error"])
@pytest.mark.parametrize("device", [1, 2, None])
def test_an_answer_is_read_whole_and_byte_by_byte(status: str, device: int | None) -> None:
    answer = Answer(ID, status, device)  # type: ignore[arg-type]
    text = encode_answer(answer)
    decoder = Decoder()
    assert Decoder().feed(text) == [answer]
    assert [one for n in range(len(text)) for one in decoder.feed(text[n : n + 1])] == [answer]


def test_what_combinators_say_of_themselves_may_be_anything() -> None:
    text = b'{"_id": "%s", "status": "done", "device": %s}'
    for device in (b'"one"', b"true", b"null", b"1.5", b"[]"):
        assert Decoder().feed(text % (ID.encode(), device)) == [Answer(ID, "done", None)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{}", ID),
        (b'{"_id": 5, "status": "done"}', ID),
        (
            b'{"_id": "%s", "status": "done"}' % (b"x" * 65),
            ID,
        ),
        (b'{"_id": "a", "status": "ready"}', "status must be done or error"),
    ],
)
def test_a_sound_object_that_is_no_answer_is_refused(text: bytes, reason: str) -> None:
    assert Decoder().feed(text) == [Refused(reason, text)]


def test_unsound_json_ends_the_connection() -> None:
    with pytest.raises(WireError):
        Decoder().feed(b'{"_id": done}')
