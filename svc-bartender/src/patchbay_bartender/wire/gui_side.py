"""The other side of `gui`: what GUIs send and how they read us. For simulated ones and tests."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from patchbay_bartender.wire.gui import (
    Answer,
    Blend,
    Config,
    Echo,
    Error,
    Frame,
    GetBlendStatus,
    GetConfig,
    GetPumpsStates,
    Number,
    PumpsStates,
    PumpState,
    Refill,
    ReloadConfig,
    SecPerLiter,
    SetPump,
    SetSecPerLiter,
    Status,
    Stop,
    WireError,
    envelope,
    shown,
    text,
)


def encode_frame(frame: Frame) -> str:
    """The text of a message of a GUI: what simulated ones send."""
    match frame:
        case Echo(data):
            return '{"type":"echo","data":' + data.decode() + "}"
        case Blend(cup_size, ratios):
            return text("blend", {"cup_size": cup_size, "ratios": ratios})
        case Refill(pump):
            return text("refill", {"pump": pump})
        case SetPump(pump, enabled, refill_time, speed_ratio):
            if enabled is not None:
                return text("set_pump_state", {"pump_index": pump, "state": enabled})
            if refill_time is not None:
                told = {"pump_index": pump, "refill_time": refill_time}
                return text("set_pump_refill_time", told)
            return text("set_pump_speed_ratio", {"pump_index": pump, "speed_ratio": speed_ratio})
        case SetSecPerLiter(sec_per_liter):
            return text("set_sec_per_liter", {"sec_per_liter": sec_per_liter})
    return msgspec.json.encode({"type": _NAMES[type(frame)]}).decode()


class AnswerDecoder:
    """The other direction, for simulated GUIs: answers out of messages."""

    def feed(self, data: str | bytes) -> list[Answer]:
        """The answer of this message. Raises WireError."""
        message = envelope(data)
        raw = message.data
        match message.type:
            case "status":
                return [_decoded_answer(raw, Status)]
            case "error":
                return [_decoded_answer(raw, Error)]
            case "echo":
                return [Echo(bytes(raw))]
            case "pumps_states":
                return [PumpsStates(_decoded_answer(raw, tuple[PumpState, ...]))]
            case "config":
                return [_decoded_answer(raw, Config)]
            case "sec_per_liter":
                return [SecPerLiter(_decoded_answer(raw, Number))]
        raise WireError(f"unknown type {shown(message.type)}")


def _decoded_answer(raw: Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise WireError(str(error)) from None


_NAMES: Final[dict[type, str]] = {
    Stop: "stop",
    GetBlendStatus: "get_blend_status",
    GetConfig: "get_config",
    GetPumpsStates: "get_pumps_states",
    ReloadConfig: "reload_config",
}
