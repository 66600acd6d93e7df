"""What msgspec says of a value, in words."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from msgspec import Meta, Struct

from patchbay import messages
from patchbay.validation import SHOWN_CHARS, convert, explain, explain_payload


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Pump(Struct, forbid_unknown_fields=True):
    gpio: int
    drink: str


class Row(Struct, array_like=True, frozen=True):
    low: int
    high: int = 3


class Pair(NamedTuple):
    left: int
    right: int


class Typed(TypedDict):
    size: int


class Stop(Struct, tag="stop", frozen=True):
    force: bool = False


class Go(Struct, tag="go", frozen=True):
    speed: Annotated[int, Meta(ge=1, le=9)]


class Order(Struct, kw_only=True, forbid_unknown_fields=True):
    """One field of each type that a peer may meet."""

    cup_size: int | float = 1
    minutes: Annotated[int, Meta(ge=1, le=525_600)] = 1
    wide: Annotated[int, Meta(ge=-(2**53), le=2**53)] = 1
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    least: Annotated[int, Meta(ge=3)] = 3
    most: Annotated[float, Meta(le=2.5)] = 1
    above: Annotated[int, Meta(gt=3)] = 4
    even: Annotated[int, Meta(multiple_of=2)] = 2
    on: bool = False
    name: Annotated[str, Meta(min_length=1, max_length=8)] = "a"
    long: Annotated[str, Meta(min_length=2)] = "ab"
    short: Annotated[str, Meta(max_length=3)] = ""
    hex: Annotated[str, Meta(pattern="^[0-9a-f]+$")] = "0"
    note: str | None = None
    none: None = None
    mode: Literal["auto", "manual"] = "auto"
    number: Literal[1, 2] = 1
    colour: Colour = Colour.RED
    pumps: Annotated[list[Pump], Meta(max_length=2)] = []
    few: Annotated[list[int], Meta(min_length=1, max_length=2)] = []
    sizes: dict[str, float] = {}
    keyed: dict[int, int] = {}
    bounded: Annotated[dict[str, int], Meta(min_length=1, max_length=1)] = {}
    ratios: dict[str, Annotated[float, Meta(ge=0)]] = {}
    pair: tuple[int, str] = (1, "a")
    row: Row = Row(1)
    named: Pair = Pair(1, 2)
    typed: Typed | None = None
    data: Annotated[bytes, Meta(max_length=4)] = b""
    at: datetime.datetime = datetime.datetime(2026, 1, 1)  # noqa: DTZ001
    zoned: Annotated[datetime.datetime, Meta(tz=True)] | None = None
    naive: Annotated[datetime.datetime, Meta(tz=False)] | None = None
    day: datetime.date = datetime.date(2026, 1, 1)
    clock: datetime.time = datetime.time(1)
    wait: datetime.timedelta = datetime.timedelta(0)
    id: uuid.UUID = uuid.UUID(int=0)
    price: decimal.Decimal = decimal.Decimal(0)
    order: Stop | Go = Stop()
    inner: Pump | None = None


class Checked(Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high\x1b[2J")


class Holder(Struct):
    checked: Checked


class Required(Struct, forbid_unknown_fields=True):
    color: str
    pump: Pump | None = None


CASES: list[tuple[type[Any], str, str]] = [
    # types
    (Order, '{"cup_size": true}', "cup_size must be a number, got true"),
    (Order, '{"cup_size": null}', "cup_size must be a number, got null"),
    (Order, '{"on": 1}', "on must be true or false, got 1"),
    (Order, '{"name": 5}', "name must be text of 1 to 8 characters, got 5"),
    (Order, '{"note": [1, 2]}', "note must be text or null, got an array of 2 items"),
    (Order, '{"none": {"a": 1}}', "none must be null, got an object of 1 fields"),
    (Order, '{"pumps": 1}', "pumps must be an array of at most 2 items, got 1"),
    (Order, '{"minutes": 1.5}', "minutes must be an integer from 1 to 525600, got 1.5"),
    (Order, "5", "must be an object, got 5"),
    # bounds
    (Order, '{"minutes": 0}', "minutes must be an integer from 1 to 525600, got 0"),
    (Order, '{"wide": true}', "wide must be an integer, got true"),
    (
        Order,
        '{"wide": 9007199254740993}',
        "wide must be an integer from -2^53 to 2^53, got 9007199254740993",
    ),
    (Order, '{"minutes": 525601}', "minutes must be an integer from 1 to 525600, got 525601"),
    (Order, '{"level": 0}', "level must be a number above 0 and below 1, got 0"),
    (Order, '{"level": 1.0}', "level must be a number above 0 and below 1, got 1.0"),
    (Order, '{"least": 2}', "least must be an integer of at least 3, got 2"),
    (Order, '{"most": 3}', "most must be a number of at most 2.5, got 3"),
    (Order, '{"above": 3}', "above must be an integer above 3, got 3"),
    (Order, '{"even": 3}', "even must be an integer that is a multiple of 2, got 3"),
    (Order, '{"cup_size": 1e999}', "cup_size must be a number of 64 bits"),
    (
        Order,
        '{"minutes": 99999999999999999999999}',
        "minutes must be an integer from 1 to 525600, got 99999999999999999999999",
    ),
    # lengths
    (Order, '{"name": ""}', 'name must be text of 1 to 8 characters, got ""'),
    (Order, '{"long": "a"}', 'long must be text of at least 2 characters, got "a"'),
    (Order, '{"short": "abcd"}', 'short must be text of at most 3 characters, got "abcd"'),
    (
        Order,
        '{"short": "' + "x" * 5000 + '"}',
        f'short must be text of at most 3 characters, got "{"x" * 40}..." (5000 characters)',
    ),
    (Order, '{"hex": "xyz"}', 'hex must be text that matches ^[0-9a-f]+$, got "xyz"'),
    (Order, '{"few": []}', "few must be an array of 1 to 2 items, got an array of 0 items"),
    (Order, '{"few": [1, 2, 3]}', "few must be an array of 1 to 2 items, got an array of 3 items"),
    (Order, '{"bounded": {}}', "bounded must be an object of 1 fields, got an object of 0 fields"),
    (Order, '{"pair": [1]}', "pair must be an array of 2 items, got an array of 1 items"),
    (Order, '{"row": []}', "row must be an array of 1 to 2 items, got an array of 0 items"),
    (Order, '{"named": [1]}', "named must be an array of 2 to 2 items, got an array of 1 items"),
    # choices
    (Order, '{"mode": "x"}', 'mode must be one of auto, manual, got "x"'),
    (Order, '{"mode": 4}', "mode must be one of auto, manual, got 4"),
    (Order, '{"number": 3}', "number must be one of 1, 2, got 3"),
    (Order, '{"colour": "green"}', 'colour must be one of red, blue, got "green"'),
    (Order, '{"order": {"type": "jump"}}', 'order.type must be one of stop, go, got "jump"'),
    (
        Order,
        '{"order": {"type": "go", "speed": 10}}',
        "order.speed must be an integer from 1 to 9, got 10",
    ),
    (Order, '{"order": {}}', "order.type is required"),
    # places
    (
        Order,
        '{"pumps": [{"gpio": "x", "drink": "a"}]}',
        'pumps[0].gpio must be an integer, got "x"',
    ),
    (Order, '{"pumps": [{"gpio": 1}]}', "pumps[0].drink is required"),
    (Order, '{"pumps": [{"gpio": 1, "drnk": ""}]}', "unknown field drnk in pumps[0]"),
    (Order, '{"inner": {"gpio": 1, "drink": 2}}', "inner.drink must be text, got 2"),
    (Order, '{"sizes": {"a": 1, "rum": true}}', "sizes.rum must be a number, got true"),
    (Order, '{"ratios": {"rum": -1}}', "ratios.rum must be a number of at least 0, got -1"),
    (Order, '{"keyed": {"x": 1}}', "a key of keyed must be an integer, got text"),
    (Order, '{"pair": ["a", "b"]}', 'pair[0] must be an integer, got "a"'),
    (Order, '{"row": ["a"]}', 'row[0] must be an integer, got "a"'),
    (Order, '{"typed": {"size": "a"}}', 'typed.size must be an integer, got "a"'),
    (Order, '{"typed": {}}', "typed.size is required"),
    (Required, "{}", "color is required"),
    (Required, '{"colour": ""}', "unknown field colour"),
    (Required, '{"color": "", "pump": {"gpio": 1}}', "pump.drink is required"),
    # texts that stand for something
    (Order, '{"data": "!"}', 'data must be base64 text of at most 4 bytes, got "!"'),
    (
        Order,
        '{"data": "AAAAAAAAAAAA"}',
        'data must be base64 text of at most 4 bytes, got "AAAAAAAAAAAA"',
    ),
    (Order, '{"at": "noon"}', 'at must be an RFC 3339 time, got "noon"'),
    (Order, '{"day": "x"}', 'day must be a date (YYYY-MM-DD), got "x"'),
    (Order, '{"clock": "x"}', 'clock must be a time of day, got "x"'),
    (Order, '{"wait": "x"}', 'wait must be an ISO 8601 duration, got "x"'),
    (Order, '{"id": "x"}', 'id must be a UUID, got "x"'),
    (Order, '{"price": "x"}', 'price must be a decimal number, got "x"'),
    (
        Order,
        '{"zoned": "2026-01-01T00:00:00"}',
        'zoned must be an RFC 3339 time with a time zone or null, got "2026-01-01T00:00:00"',
    ),
    (
        Order,
        '{"naive": "2026-01-01T00:00:00Z"}',
        'naive must be an RFC 3339 time without a time zone or null, got "2026-01-01T00:00:00Z"',
    ),
    # our own texts stay, printable
    (Checked, '{"low": 2, "high": 1}', "low is above high\\x1b[2J"),
    (Holder, '{"checked": {"low": 2, "high": 1}}', "checked: low is above high\\x1b[2J"),
    # no JSON
    (Order, "", "it ends too early"),
    (Order, '{"name"', "it ends too early"),
    (Order, "{]", "object keys must be strings at byte 1"),
    (Order, '{"name": "a"} x', "trailing characters at byte 15"),
    (Order, '{"name": "\\ud800"}', "it ends too early"),
    (
        Order,
        '{"name": "\\ud800 and more"}',
        "unexpected end of escaped utf-16 surrogate pair at byte 16",
    ),
]


@pytest.mark.parametrize(("kind", "payload", "words"), CASES)
def test_every_message_of_a_decoder_is_in_words(kind: type[Any], payload: str, words: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(payload, type=kind)
    assert explain_payload(caught.value, kind, payload, msgspec.json) == words


@pytest.mark.parametrize(("kind", "payload", "_words"), CASES)
def test_without_the_type_and_the_value_no_raw_text_is_left(
    kind: type[Any], payload: str, _words: str
) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(payload, type=kind)
    words = explain(caught.value)
    assert "`" not in words
    assert "$" not in words.replace("+$", "")
    assert words.isprintable()


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Order, {"id": b"123"}, "id must be a UUID, got 3 bytes"),
        (Order, {"at": 1e30}, "at must be an RFC 3339 time, got 1e+30"),
        (Order, {"wait": 1e30}, "wait must be an ISO 8601 duration, got 1e+30"),
        (Order, {"name": object()}, "name must be text of 1 to 8 characters, got object"),
        (Order, {"minutes": 10**5000}, None),
        (int, "x\x1b[2J", 'must be an integer, got "x\\x1b[2J"'),
    ],
)
def test_a_value_that_was_converted_is_in_words(
    kind: type[Any], value: object, words: str | None
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        convert(value, kind)
    said = str(caught.value)
    assert said == words if words is not None else said.endswith("got a larger number")


def test_a_value_that_is_secret_is_not_repeated() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"minutes": "hush"}, Order)
    words = explain(caught.value, Order, {"minutes": "hush"}, secret=True)
    assert words == "minutes must be an integer from 1 to 525600"


def test_names_of_others_are_cut_and_printable() -> None:
    name = "\x1b[2J" + "x" * 100_000
    with pytest.raises(msgspec.ValidationError) as caught:
        convert({name: 1}, Order)
    assert str(caught.value) == f"unknown field \\x1b[2J{'x' * (SHOWN_CHARS - 4)}..."
    with pytest.raises(msgspec.ValidationError) as caught:
        convert({"sizes": {name: "no"}}, Order)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_a_text_that_speaks_like_msgspec_leads_nowhere() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        convert({"` - at `$.name`": 1}, Order)
    assert str(caught.value) == "unknown field ` - at `$.name`"


def test_messages_are_decoded_with_errors_in_words() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        messages.decode(msgspec.json.Decoder(Order), b'{"minutes": 0}')
    assert str(caught.value) == "minutes must be an integer from 1 to 525600, got 0"
    with pytest.raises(msgspec.DecodeError) as bad:
        messages.decode(msgspec.json.Decoder(Order), b"\x9f" * 3)
    assert str(bad.value) == "invalid character at byte 0"
    packed = msgspec.msgpack.encode({"minutes": "x"})
    with pytest.raises(msgspec.ValidationError) as caught:
        messages.decode(msgspec.msgpack.Decoder(Order), packed)
    assert str(caught.value) == 'minutes must be an integer from 1 to 525600, got "x"'
    with pytest.raises(msgspec.DecodeError) as bad:
        messages.decode(msgspec.msgpack.Decoder(Order), b"\xc1")
    assert str(bad.value) == "invalid opcode '\\xc1' at byte 0"


def test_an_error_of_a_payload_that_is_too_large_to_be_looked_at_is_in_words() -> None:
    payload = b'{"note": "' + b"x" * 100_000 + b'", "minutes": 0}'
    with pytest.raises(msgspec.ValidationError) as caught:
        messages.decode(msgspec.json.Decoder(Order), payload)
    assert str(caught.value) == "minutes must be an integer from 1 to 525600"
