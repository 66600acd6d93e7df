"""The Chromebooks' wire."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_allocator.wire.intake import Decoder, Job, Refused, encode
from patchbay_allocator.wire.json_objects import WireError

JOB = Job("CHROMEBOOK_04", "이름", "696969")
SEED = '{"ClientName": "CHROMEBOOK_04", "data": {"CustomerName": "이름", "ColorCode": "696969"}}'


def test_a_job_is_read_as_the_seed_writes_it_in_either_spelling() -> None:
    assert Decoder().feed(SEED.encode()) == [JOB]
    assert Decoder().feed(json.dumps(json.loads(SEED)).encode()) == [JOB]
    assert json.loads(encode(JOB)) == json.loads(SEED)


@given(st.text(), st.text(), st.text(), st.integers(1, 40))
def test_what_is_encoded_is_decoded_in_any_pieces(
    client: str, customer: str, color: str, size: int
) -> None:
    job = Job(client, customer, color)
    decoder = Decoder()
    stream = encode(job) * 2
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [one for piece in pieces for one in decoder.feed(piece)] == [job, job]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "data must be an object"),
        ('{"ClientName": "A", "data": []}', "data must be an object"),
        ('{"ClientName": 4, "data": {}}', "ClientName must be a text"),
        ('{"ClientName": "A", "data": {}}', "CustomerName must be a text"),
        (
            '{"ClientName": "A", "data": {"CustomerName": "B", "ColorCode": 696969}}',
            "ColorCode must be a text",
        ),
    ],
)
def test_a_sound_object_that_is_no_job_is_refused_and_the_next_one_counts(
    text: str, reason: str
) -> None:
    assert Decoder().feed((text + SEED).encode()) == [Refused(reason, text.encode()), JOB]


def test_unsound_json_ends_the_connection_after_what_came_before_it() -> None:
    with pytest.raises(WireError, match="not sound JSON") as caught:
        Decoder().feed(SEED.encode() + b"{nope}" + SEED.encode())
    assert caught.value.before == [JOB]
    with pytest.raises(WireError, match="not a JSON object") as caught:
        Decoder().feed(SEED.encode() + b"nope")
    assert caught.value.before == [JOB]


def test_extra_keys_are_ignored() -> None:
    said = {**json.loads(SEED), "more": {"a": [1]}}
    assert Decoder().feed(json.dumps(said).encode()) == [JOB]
