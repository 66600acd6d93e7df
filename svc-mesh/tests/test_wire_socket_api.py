"""The socket API, byte for byte: requests whole, in every split, with and without an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_mesh.wire.socket_api import (
    COMMANDS,
    MAX_REQUEST,
    Asked,
    Call,
    Decoder,
    Get,
    Listen,
    Raw,
    Refused,
    Request,
    accepted,
    encode,
    pushed,
    read,
    refused,
    values,
)
from patchbay_mesh.wire.uart import Frame, WireError

GPS = bytes.fromhex("02f001be9200")
BAD = Refused("Bad Request")
UNKNOWN = Refused("Unknown Command")
AT_ONCE: list[tuple[bytes, Asked]] = [
    (b"[GET]GPS\x00\x05", Get(b"GPS", 5)),
    (b"[GET]\x00\x05GPS", Get(b"GPS", 5)),
    (b"[GET]GPS\x00\x00", Get(b"GPS", 0)),
    (b"NINFO", Call(b"NINFO")),
    (b"RST-R", Call(b"RST-R")),
    (b"CLEAN", Call(b"CLEAN")),
    (b"SENDI", Call(b"SENDI")),
    (b"GETDF", Call(b"GETDF")),
    (b"STATE", Call(b"STATE")),
    (b"ACT-C", Call(b"ACT-C")),
    (b"NSTAT", Call(b"NSTAT")),
    (b"[syn]\x00", Listen(lengths=False)),
    (b"[syn]\x01", Listen(lengths=True)),
    (b"[syn]\x02", BAD),
]
IN_TIME: list[tuple[bytes, Asked]] = [
    (b"SEND-\x00\x05hi", Call(b"SEND-", 5, b"hi")),
    (b"BCAST\x00\x00all", Call(b"BCAST", 0, b"all")),
    (b"[REQ]\x00\x05yes", Call(b"[REQ]", 5, b"yes")),
    (b"SEND-\x00\x05" + b"x" * 255, Call(b"SEND-", 5, b"x" * 255)),
    (b"SEND-\x00\x05" + b"x" * 256, BAD),
    (b"SEND-\x00", BAD),
    (b"[CMD]NINFO", Raw(b"NINFO")),
    (b"[CMD]SEND-\x00\x05\x02hi", Raw(b"SEND-\x00\x05\x02hi")),
    (b"[CMD]XYZ", BAD),
    (b"W-LOG robot 3 is stuck", Call(b"W-LOG", payload=b" robot 3 is stuck")),
    (b'W-RBT[{"id": 3}]', Call(b"W-RBT", payload=b'[{"id": 3}]')),
    (b"W-RBT{nonsense", BAD),
    (b"XYZZY", UNKNOWN),
    (b"[XYZ]what", UNKNOWN),
    (b"NIN", BAD),
    (b"[GET]GPS\x00", BAD),
    (b"[syn]", BAD),
]


@pytest.mark.parametrize(("line", "asked"), AT_ONCE)
def test_a_request_of_a_fixed_length_is_complete_at_it_in_every_split(
    line: bytes, asked: Asked
) -> None:
    for at in range(len(line)):
        decoder = Decoder()
        assert decoder.feed(line[:at]) == []
        assert decoder.waiting == (at > 0)
        assert decoder.feed(line[at:]) == [Request(asked)]
        assert decoder.finish() == []


@pytest.mark.parametrize(("line", "asked"), IN_TIME)
def test_any_other_is_complete_when_nothing_more_comes(line: bytes, asked: Asked) -> None:
    for at in range(len(line) + 1):
        decoder = Decoder()
        assert decoder.feed(line[:at]) == []
        assert decoder.feed(line[at:]) == []
        assert decoder.waiting
        assert decoder.finish() == [Request(asked)]
        assert decoder.finish() == []


@pytest.mark.parametrize(("line", "asked"), IN_TIME[:-2])
def test_or_at_the_end_mark_in_every_split(line: bytes, asked: Asked) -> None:
    stream = line + b"[E]" + b"BCAST\x00\x00x[E]"
    for at in range(len(stream) + 1):
        decoder = Decoder()
        requests = decoder.feed(stream[:at]) + decoder.feed(stream[at:])
        assert requests == [Request(asked, True), Request(Call(b"BCAST", 0, b"x"), True)]


@pytest.mark.parametrize(("line", "asked"), AT_ONCE)
def test_an_end_mark_that_comes_with_a_fixed_length_lets_more_follow(
    line: bytes, asked: Asked
) -> None:
    decoder = Decoder()
    requests = decoder.feed(line + b"[E]" + line + b"[E]NSTAT[E]")
    assert requests == [Request(asked, True)] * 2 + [Request(Call(b"NSTAT"), True)]
    assert not decoder.waiting


def test_after_a_first_mark_a_fixed_length_waits_for_its_own() -> None:
    decoder = Decoder()
    assert decoder.feed(b"NSTAT[E][GET]GPS\x00\x05") == [Request(Call(b"NSTAT"), True)]
    assert decoder.waiting
    assert decoder.feed(b"[E]") == [Request(Get(b"GPS", 5), True)]


def test_what_follows_a_command_without_arguments_is_ignored() -> None:
    assert Decoder().feed(b"ACT-C\x00\x05") == [Request(Call(b"ACT-C"))]
    assert Decoder().feed(b"ACT-C\x00\x05[E]NSTAT\x00\x00[E]") == [
        Request(Call(b"ACT-C"), True),
        Request(Call(b"NSTAT"), True),
    ]


def test_another_end_mark_or_none() -> None:
    assert Decoder(b"##").feed(b"SEND-\x00\x05[E]##") == [Request(Call(b"SEND-", 5, b"[E]"), True)]
    decoder = Decoder(b"")
    assert decoder.feed(b"SEND-\x00\x05[E]") == []
    assert decoder.finish() == [Request(Call(b"SEND-", 5, b"[E]"))]


@pytest.mark.parametrize(
    ("rest", "order", "get"),
    [
        (b"GPS\x00\x05", "node", Get(b"GPS", 5)),
        (b"\x00\x05GPS", "type", Get(b"GPS", 5)),
        (b"GPS\x41\x05", "node", Get(b"GPS", 0x4105)),
        (b"GPS\x00\x41", "node", Get(b"GPS", 0x41)),
        (b"\x41\x05GPS", "type", Get(b"GPS", 0x4105)),
        (b"GPSAB", "type", Get(b"GPS", 0x4142)),
        (b"ABGPS", "node", Get(b"GPS", 0x4142)),
        (b"\x01\x02\x03\x00\x05", "type", Get(b"\x01\x02\x03", 5)),
        (b"\x00\x05\x01\x02\x03", "node", Get(b"\x01\x02\x03", 5)),
    ],
)
def test_the_order_of_a_get_is_told_by_what_is_printable_or_by_the_setting(
    rest: bytes, order: str, get: Get
) -> None:
    assert read(b"[GET]" + rest, order) == get  # type: ignore[arg-type]


def test_every_address_is_read_in_the_seeds_order_and_in_the_clients_where_bytes_tell_it() -> None:
    def printable(byte: int) -> bool:
        return 0x20 <= byte <= 0x7E

    for node in range(0x1_0000):
        high, low = node.to_bytes(2, "big")
        both = printable(high) and printable(low)
        assert read(b"[GET]GPS" + bytes([high, low])) == Get(b"GPS", node)
        assert read(b"[GET]" + bytes([high, low]) + b"GPS", "node") == Get(b"GPS", node)
        if not both:
            assert read(b"[GET]GPS" + bytes([high, low]), "node") == Get(b"GPS", node)
            assert read(b"[GET]" + bytes([high, low]) + b"GPS", "type") == Get(b"GPS", node)


def test_a_request_that_never_ends_is_refused_and_fills_no_memory() -> None:
    decoder = Decoder()
    requests = []
    for _ in range(100):
        requests += decoder.feed(b"W-LOG" + b"x" * 1000)
        assert len(decoder._held) <= MAX_REQUEST + 1005
    assert requests == [Request(BAD)]
    assert not decoder.waiting


def test_a_new_command_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, b"BLINK", "address and message")
    assert read(b"BLINK\x00\x05now") == Call(b"BLINK", 5, b"now")


@given(st.binary(max_size=40), st.integers(0, 40))
def test_any_bytes_are_a_request_or_a_refusal(line: bytes, at: int) -> None:
    decoder = Decoder()
    requests = decoder.feed(line[:at]) + decoder.feed(line[at:]) + decoder.finish()
    assert bool(requests) == bool(line)
    assert not decoder.waiting


@given(
    st.builds(Get, st.just(b"GPS"), st.integers(0, 255))
    | st.builds(Raw, st.binary(min_size=5, max_size=80))
    | st.builds(Call, st.just(b"SEND-"), st.integers(0, 0xFFFF), st.binary(max_size=255))
    | st.builds(Listen, st.booleans())
)
def test_a_request_that_is_written_is_read(asked: Get | Raw | Call | Listen) -> None:
    assert read(encode(asked)) == asked


def test_what_is_no_command_is_not_written() -> None:
    with pytest.raises(WireError):
        encode(Call(b"XYZZY"))


def test_values_are_answered_as_the_description_has_it() -> None:
    assert values(b"GPS", [(5, GPS)]) == bytes.fromhex("53475053060100 0502f001be9200")
    assert values(b"GPS", [(5, GPS), (6, bytes.fromhex("03f001bf9200"))]) == bytes.fromhex(
        "534750530602000502f001be9200000603f001bf9200"
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Node Not Found", b"F\x0eNode Not Found"),
        ("Data Type Not Found", b"F\x13Data Type Not Found"),
        ("Unknown Command", b"F\x0fUnknown Command"),
        ("Serial Not Ready", b"F\x10Serial Not Ready"),
        ("Bad Request", b"F\x0bBad Request"),
    ],
)
def test_a_refusal_is_its_length_and_text(text: str, answer: bytes) -> None:
    assert refused(text) == answer


def test_yes_is_one_letter() -> None:
    assert accepted() == b"S"
    assert accepted(b"\x02") == b"S\x02"


def test_listeners_get_frames_as_they_are_and_requests_under_their_name() -> None:
    hello = Frame(0xFE, b"[M]", b"\x05hello")
    assert pushed(hello) == b"\x00\xfe[M]\x05hello"
    assert pushed(hello, lengths=True) == b"\x00\x0b\x00\xfe[M]\x05hello"
    assert pushed(Frame(5, b"<Q>", b"where?")) == b"[REQ]\x00\x05where?"
    assert pushed(Frame(0, b"RST")) == b"\x00\x00RST"
    assert pushed(Frame(7, b"R")) == b"\x00\x07R"


def test_a_long_request_byte_by_byte_costs_about_what_it_costs_in_one_piece_for_each_byte() -> None:
    """The work is counted by the interpreter's own calls of find: none looks twice at a byte."""
    searched: list[int] = []

    class Counting(bytearray):
        def find(self, sub: bytes, start: int = 0) -> int:  # type: ignore[override]
            searched.append(len(self) - start)
            return super().find(sub, start)

    decoder = Decoder()
    decoder._held = Counting()
    request = b"W-LOG" + b"x" * 60_000
    for at in range(len(request)):
        assert decoder.feed(request[at : at + 1]) == []
    [request_found] = decoder.feed(b"[E]")
    assert request_found.marked
    assert sum(searched) < 5 * len(request)
