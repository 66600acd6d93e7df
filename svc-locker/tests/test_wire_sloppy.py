"""What firmware writes sloppily and can only mean one thing is taken."""

from __future__ import annotations

import pytest

from patchbay_locker.wire import Decoder, Request, encode_request

BOM = b"\xef\xbb\xbf"


def read(*lines: str, send: str = "1") -> Request:
    data = "\r\n".join(["ACon_V1.0", "ID=sloppy", f"SEND={send}", *lines, "CLOSE"]).encode()
    [request] = Decoder().feed(data)
    return request


@pytest.mark.parametrize("key", ["STATE", "BOX_ENG", "BOX_TO", "BOX_ACC"])
def test_a_comma_after_the_last_number_does_not_count(key: str) -> None:
    assert getattr(read(f"{key}=2,5,"), key.lower()) == (2, 5)


@pytest.mark.parametrize("key", ["CONNECTION", "WIFI_STATE", "GSM_STATE", "COLS", "ROWS"])
def test_an_empty_number_is_one_that_is_not_said(key: str) -> None:
    assert read(f"{key}=") == read()


def test_an_empty_reset_is_no_reset() -> None:
    assert not read("RESET=").reset


@pytest.mark.parametrize(
    ("text", "send"),
    [("-2147483648", 2**31), ("-2147483647", 2**31 + 1), ("-1", 2**32 - 1)],
)
def test_a_send_that_wraps_to_negative_goes_on_rising(text: str, send: int) -> None:
    request = read(send=text)
    assert (request.send, request.send_text) == (send, text)


def test_a_byte_order_mark_before_a_message_is_skipped_in_any_split() -> None:
    one = encode_request(Request("ACon_V1.0", "1953", 1, "1"))
    two = encode_request(Request("ACon_V1.0", "1953", 2, "2"))
    stream = BOM + one + b"\r\n" + BOM + two
    for size in (1, 2, 3, len(stream)):
        decoder = Decoder()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [r.send for piece in pieces for r in decoder.feed(piece)] == [1, 2]
