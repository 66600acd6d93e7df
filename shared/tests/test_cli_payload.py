from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.cli.payload import readable
from patchbay.messages import EVENT_MSGPACK


@pytest.mark.parametrize(
    ("payload", "content_type", "shown"),
    [
        (b'{"minutes": 60}', "", '{"minutes": 60}'),
        (b"online", "", "online"),
        ("привет".encode(), "", "привет"),
        (b"two\nlines\x1b[2J", "", r"two\nlines\x1b[2J"),
        (msgpack.packb({"id": "1", "data": [1, 2]}), EVENT_MSGPACK, '{"id":"1","data":[1,2]}'),
        (msgpack.packb({"t": 3.5}), EVENT_MSGPACK, '{"t":3.5}'),
        (msgpack.packb({"raw": b"\xff\xfe"}), "", '{"raw":"fffe"}'),
        (b"\xff\xfe\x00", "", "ff fe 00"),
        (b"\xc1" * 70, EVENT_MSGPACK, f"{'c1 ' * 64}... 6 more bytes"),
    ],
)
def test_a_payload_is_one_readable_line(payload: bytes, content_type: str, shown: str) -> None:
    assert readable(payload, content_type) == shown


@given(st.binary(max_size=300), st.sampled_from(["", EVENT_MSGPACK]))
def test_any_bytes_give_one_printable_line(payload: bytes, content_type: str) -> None:
    assert readable(payload, content_type).isprintable()
