"""The API's wire."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_lantern.wire.errors import WireError
from patchbay_lantern.wire.http import (
    MAX_BODY,
    Call,
    decode,
    encode,
    encode_done,
    encode_error,
)

SEED = b'{"method": "message", "params": {"command": "COLOR", "value": "ff0000"}}'

REFUSED = [
    (b"", "bad_json"),
    (b"{", "bad_json"),
    (b"\xff\xfe", "bad_json"),
    (b'{"method": "message", "params": {"command": "\xff"}}', "bad_json"),
    (b"[" * 5000, "bad_json"),
    (b"method=message", "bad_json"),
    (b"[]", "bad_request"),
    (b"null", "bad_request"),
    (b"{}", "unknown_method"),
    (b'{"method": "MESSAGE", "params": {"command": "ON"}}', "unknown_method"),
    (b'{"method": ["message"], "params": {"command": "ON"}}', "unknown_method"),
    (b'{"method": "message"}', "bad_request"),
    (b'{"method": "message", "params": ["ON"]}', "bad_request"),
    (b'{"method": "message", "params": {}}', "bad_request"),
    (b" " * (MAX_BODY + 1), "too_large"),
]


def test_the_seeds_body_is_a_call() -> None:
    assert decode(SEED) == Call("COLOR", "ff0000")


def test_keys_that_are_not_known_are_ignored() -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "message", "params": {"command": "ON", "x": 1}}'
    assert decode(body) == Call("ON")


@pytest.mark.parametrize(("body", "code"), REFUSED, ids=lambda one: repr(one)[:40])
def test_what_is_no_call_is_refused_with_its_code(body: bytes, code: str) -> None:
    with pytest.raises(WireError) as caught:
        decode(body)
    assert caught.value.code == code
    assert str(caught.value)


def test_answers_are_what_the_description_says() -> None:
    done = json.loads(encode_done("COLOR", "ff0000", 3))
    assert done == {"result": "ok", "command": "COLOR", "value": "ff0000", "lanterns": 3}
    assert json.loads(encode_error("a", "b")) == {"error": {"code": "a", "message": "b"}}


@given(st.text(), st.none() | st.text() | st.integers(-(2**53), 2**53))
def test_a_call_is_read_as_it_was_written(command: str, value: object) -> None:
    assert decode(encode(Call(command, value))) == Call(command, value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_call_or_refused(body: bytes) -> None:
    found: Call | WireError
    try:
        found = decode(body)
    except WireError as error:
        found = error
    assert isinstance(found, Call) or found.code in {code for _, code in REFUSED}
