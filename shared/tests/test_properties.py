"""The properties of a message: as few as it has."""

from __future__ import annotations

from patchbay.bus.properties import properties


def test_a_message_that_says_nothing_more_has_none() -> None:
    assert properties() is None


def test_a_content_type_alone_is_packed_once() -> None:
    one = properties(content_type="application/json")
    assert one is not None
    assert one.ContentType == "application/json"
    assert properties(content_type="application/json") is one


def test_a_request_has_its_own_with_all_that_it_says() -> None:
    made = properties(expiry_s=30, content_type="t", response_topic="r", correlation=b"c")
    assert made is not None
    assert made.MessageExpiryInterval == 30
    assert made.ContentType == "t"
    assert made.ResponseTopic == "r"
    assert made.CorrelationData == b"c"
    assert properties(expiry_s=30) is not properties(expiry_s=30)


def test_an_expiry_of_nothing_is_said() -> None:
    made = properties(expiry_s=0)
    assert made is not None
    assert made.MessageExpiryInterval == 0
