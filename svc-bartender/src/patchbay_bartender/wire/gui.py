"""JSON over WebSocket, as the cocktail machine's GUIs speak it. Each text message is one object:

    {"type": "blend", "data": {"cup_size": 0.04, "ratios": {"1": 0.2, "2": 0.1, "5": 0.7}}}

    from a GUI                                         from us
    blend                 cup_size, ratios             status       {"remaining_time": seconds}
    refill                pump                         echo         the data of the echo
    echo                  anything                     error        {"msg": text}
    get_blend_status                                   pumps_states a list of 8
    get_pumps_states                                   config       {"pumps", "sec_per_liter"}
    get_config, reload_config                          sec_per_liter  a bare number
    set_pump_state        pump_index, state
    set_pump_refill_time  pump_index, refill_time
    set_pump_speed_ratio  pump_index, speed_ratio
    set_sec_per_liter     sec_per_liter
    stop                  (ours: everything off, now)

Source: the seed (README of AutoBarMaid_back) for blend, refill, echo, status and error; the rest is
what programs in use send. A message is complete in itself, so nothing is held back between two.
Fields that are not named here are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from patchbay.validation import explain, explain_payload

MAX_FRAME: Final = 65_536
"""Bytes of one message: a blend has some 200; what is longer is no GUI of ours."""

Number = Annotated[int, Meta(ge=-(2**53), le=2**53)] | float
"""A number as it was said: 213 stays 213. Longer integers are no numbers elsewhere either."""


class WireError(Exception):
    """What came is no message of the protocol. Say so to its sender; the connection stays."""


# From a GUI


@dataclass(frozen=True, slots=True)
class Blend:
    """Pour a cup of so many litres: pump -> ratio, as they were said."""

    cup_size: Number
    ratios: dict[str, Number]


@dataclass(frozen=True, slots=True)
class Refill:
    """Fill the tube of this pump."""

    pump: int


@dataclass(frozen=True, slots=True)
class Echo:
    """Say this back: JSON, byte for byte."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Stop:
    """Everything off, now."""


@dataclass(frozen=True, slots=True)
class GetBlendStatus:
    """How long is it to the end?"""


@dataclass(frozen=True, slots=True)
class GetConfig:
    """What is the configuration?"""


@dataclass(frozen=True, slots=True)
class GetPumpsStates:
    """What of the pumps?"""


@dataclass(frozen=True, slots=True)
class ReloadConfig:
    """Tell everybody the configuration again."""


@dataclass(frozen=True, slots=True)
class SetPump:
    """Change one pump: one of the three is not None."""

    pump: int
    enabled: bool | None = None
    refill_time: Number | None = None
    speed_ratio: Number | None = None


@dataclass(frozen=True, slots=True)
class SetSecPerLiter:
    """Change how long a litre takes."""

    sec_per_liter: Number


Frame = (
    Blend
    | Refill
    | Echo
    | Stop
    | GetBlendStatus
    | GetConfig
    | GetPumpsStates
    | ReloadConfig
    | SetPump
    | SetSecPerLiter
)


# To a GUI


@dataclass(frozen=True, slots=True)
class Status:
    """Whole seconds to the end, rounded up; 0 when it is over."""

    remaining_time: int


@dataclass(frozen=True, slots=True)
class Error:
    """Something went wrong."""

    msg: str


@dataclass(frozen=True, slots=True)
class PumpState:
    """One pump of `PumpsStates` and `Config`."""

    enabled: bool
    refill_time: Number
    speed_ratio: Number


@dataclass(frozen=True, slots=True)
class PumpsStates:
    """All pumps."""

    pumps: tuple[PumpState, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """All that can be set."""

    pumps: tuple[PumpState, ...]
    sec_per_liter: Number


@dataclass(frozen=True, slots=True)
class SecPerLiter:
    """How long a litre takes."""

    sec_per_liter: Number


Answer = Echo | Status | Error | PumpsStates | Config | SecPerLiter


class Message(Struct):
    """The envelope of both directions."""

    type: str
    data: Raw = Raw(b"null")


class _Blend(Struct):
    cup_size: Number
    ratios: dict[str, Number]


class _Refill(Struct):
    pump: int | str


class _Pump(Struct):
    pump_index: int | str


class _State(_Pump):
    state: bool


class _RefillTime(_Pump):
    refill_time: Number


class _SpeedRatio(_Pump):
    speed_ratio: Number


class _SecPerLiter(Struct):
    sec_per_liter: Number


_message = msgspec.json.Decoder(Message)
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_json = msgspec.json.Encoder()


class Decoder:
    """Messages in, frames out; what comes before and after a message does not matter to it."""

    def feed(self, data: str | bytes) -> list[Frame]:
        """The frame of this message. Raises WireError, with a text for its sender."""
        if len(data) > MAX_FRAME:
            raise WireError(f"a message over {MAX_FRAME} bytes")
        message = envelope(data)
        if message.type == "echo":  # the common case goes first, and through nothing else
            _well_formed(message.data)
            return [Echo(bytes(message.data))]
        make = _FRAMES.get(message.type)
        if make is None:
            raise WireError(f"unknown type {shown(message.type)}")
        return [make(message.data)]


def encode(answer: Answer) -> str:
    """The text of a message to a GUI."""
    match answer:
        case Echo(data):
            return '{"type":"echo","data":' + data.decode() + "}"
        case Status(seconds):
            return text("status", {"remaining_time": seconds})
        case Error(msg):
            return text("error", {"msg": msg})
        case PumpsStates(pumps):
            return text("pumps_states", pumps)
        case Config(pumps, sec_per_liter):
            return text("config", {"pumps": pumps, "sec_per_liter": sec_per_liter})
        case SecPerLiter(sec_per_liter):
            return text("sec_per_liter", sec_per_liter)


def text(name: str, data: object) -> str:
    """The text of a message of this type."""
    return _json.encode({"type": name, "data": data}).decode()


def envelope(data: str | bytes) -> Message:
    """A message, its data not looked at. Raises WireError."""
    message: Message = _decoded(_message, data, "message")
    return message


def shown(text: str) -> str:
    """So much of somebody's text as an error may repeat."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


# Details


def _decoded(decoder: msgspec.json.Decoder[Any], data: str | bytes | Raw, name: str) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        text = data if isinstance(data, str) else bytes(data)
        why = explain_payload(error, decoder.type, text, msgspec.json)
        raise WireError(f"{name}: {why}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise WireError(f"not JSON: {explain(error)}") from None


def _well_formed(raw: Raw) -> None:
    """Raw data was skipped over, and what was only skipped may nest too deep or be no text."""
    _decoded(_anything, raw, "data")


_blend = msgspec.json.Decoder(_Blend)
_refill = msgspec.json.Decoder(_Refill)
_state = msgspec.json.Decoder(_State)
_refill_time = msgspec.json.Decoder(_RefillTime)
_speed_ratio = msgspec.json.Decoder(_SpeedRatio)
_sec_per_liter = msgspec.json.Decoder(_SecPerLiter)


def _read_blend(raw: Raw) -> Frame:
    data: _Blend = _decoded(_blend, raw, "blend")
    return Blend(data.cup_size, data.ratios)


def _read_refill(raw: Raw) -> Frame:
    data: _Refill = _decoded(_refill, raw, "refill")
    return Refill(_pump(data.pump))


def _read_state(raw: Raw) -> Frame:
    data: _State = _decoded(_state, raw, "set_pump_state")
    return SetPump(_pump(data.pump_index), enabled=data.state)


def _read_refill_time(raw: Raw) -> Frame:
    data: _RefillTime = _decoded(_refill_time, raw, "set_pump_refill_time")
    return SetPump(_pump(data.pump_index), refill_time=data.refill_time)


def _read_speed_ratio(raw: Raw) -> Frame:
    data: _SpeedRatio = _decoded(_speed_ratio, raw, "set_pump_speed_ratio")
    return SetPump(_pump(data.pump_index), speed_ratio=data.speed_ratio)


def _read_sec_per_liter(raw: Raw) -> Frame:
    data: _SecPerLiter = _decoded(_sec_per_liter, raw, "set_sec_per_liter")
    return SetSecPerLiter(data.sec_per_liter)


def _pump(said: int | str) -> int:
    """A pump's number: the GUI in use sends it as text."""
    if isinstance(said, int):
        return said
    if said.isascii() and said.isdigit() and len(said) <= 3:
        return int(said)
    raise WireError(f"no such pump: {shown(said)}")


_FRAMES: Final[dict[str, Callable[[Raw], Frame]]] = {
    "blend": _read_blend,
    "refill": _read_refill,
    "stop": lambda _raw: Stop(),
    "get_blend_status": lambda _raw: GetBlendStatus(),
    "get_config": lambda _raw: GetConfig(),
    "get_pumps_states": lambda _raw: GetPumpsStates(),
    "reload_config": lambda _raw: ReloadConfig(),
    "set_pump_state": _read_state,
    "set_pump_refill_time": _read_refill_time,
    "set_pump_speed_ratio": _read_speed_ratio,
    "set_sec_per_liter": _read_sec_per_liter,
}
