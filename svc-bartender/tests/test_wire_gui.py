"""The GUIs' codec: every message of the seed, the extras, and anything else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_bartender.wire.gui import (
    MAX_FRAME,
    Answer,
    Blend,
    Config,
    Decoder,
    Echo,
    Error,
    Frame,
    GetBlendStatus,
    GetConfig,
    GetPumpsStates,
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
    encode,
)
from patchbay_bartender.wire.gui_side import AnswerDecoder, encode_frame

FROM_A_GUI: list[tuple[str, Frame]] = [
    (
        '{"type": "blend", "data": {"cup_size": 0.04, "ratios": {"1": 0.2, "2": 0.1, "5": 0.7}}}',
        Blend(0.04, {"1": 0.2, "2": 0.1, "5": 0.7}),
    ),
    ('{"type": "blend", "data": {"cup_size": 1, "ratios": {}}}', Blend(1, {})),
    ('{"type": "refill", "data": {"pump": 4}}', Refill(4)),
    ('{"type": "refill", "data": {"pump": "4"}}', Refill(4)),
    ('{"type": "echo", "data": {"msg": "toaster"}}', Echo(b'{"msg": "toaster"}')),
    ('{"type": "echo", "data": "anything"}', Echo(b'"anything"')),
    ('{"type": "echo"}', Echo(b"null")),
    ('{"data": [1, 2], "type": "echo", "more": 1}', Echo(b"[1, 2]")),
    ('{"type": "get_blend_status"}', GetBlendStatus()),
    ('{"type": "get_blend_status", "data": null}', GetBlendStatus()),
    ('{"type": "get_config"}', GetConfig()),
    ('{"type": "get_pumps_states"}', GetPumpsStates()),
    ('{"type": "reload_config"}', ReloadConfig()),
    ('{"type": "stop"}', Stop()),
    (
        '{"type": "set_pump_state", "data": {"pump_index": 3, "state": false}}',
        SetPump(3, enabled=False),
    ),
    (
        '{"type": "set_pump_refill_time", "data": {"pump_index": "3", "refill_time": 2.5}}',
        SetPump(3, refill_time=2.5),
    ),
    (
        '{"type": "set_pump_speed_ratio", "data": {"pump_index": 3, "speed_ratio": 2}}',
        SetPump(3, speed_ratio=2),
    ),
    ('{"type": "set_sec_per_liter", "data": {"sec_per_liter": 213}}', SetSecPerLiter(213)),
]

TO_A_GUI: list[tuple[str, Answer]] = [
    ('{"type": "status", "data": {"remaining_time": 2}}', Status(2)),
    ('{"type": "echo", "data": {"msg": "toaster"}}', Echo(b'{"msg": "toaster"}')),
    (
        '{"type": "error", "data": {"msg": "Already blending ! Retry in 3 sec"}}',
        Error("Already blending ! Retry in 3 sec"),
    ),
    (
        '{"type": "pumps_states", "data": [{"enabled": true, "refill_time": 2, "speed_ratio": 1}]}',
        PumpsStates((PumpState(True, 2, 1),)),
    ),
    (
        '{"type": "config", "data": {"pumps": [{"enabled": false, "refill_time": 2.5,'
        ' "speed_ratio": 1.0}], "sec_per_liter": 213}}',
        Config((PumpState(False, 2.5, 1.0),), 213),
    ),
    ('{"type": "sec_per_liter", "data": 213}', SecPerLiter(213)),
]

NO_MESSAGES = [
    "",
    "pour!",
    "nul",
    "[]",
    "null",
    '"blend"',
    "{}",
    '{"type": null}',
    '{"type": "pour"}',
    '{"type": "Blend", "data": {}}',
    '{"type": "blend"}',
    '{"type": "blend", "data": {"cup_size": true, "ratios": {"1": 1}}}',
    '{"type": "blend", "data": {"cup_size": "1", "ratios": {"1": 1}}}',
    '{"type": "blend", "data": {"cup_size": NaN, "ratios": {"1": 1}}}',
    '{"type": "blend", "data": {"cup_size": 1e999, "ratios": {"1": 1}}}',
    '{"type": "blend", "data": {"cup_size": ' + "9" * 400 + ', "ratios": {"1": 1}}}',
    '{"type": "blend", "data": {"cup_size": 1, "ratios": [1]}}',
    '{"type": "blend", "data": {"cup_size": 1, "ratios": {"1": false}}}',
    '{"type": "refill", "data": {"pump": "four"}}',
    '{"type": "refill", "data": {"pump": "\u0664"}}',
    '{"type": "refill", "data": {"pump": 4.0}}',
    '{"type": "refill", "data": 4}',
    '{"type": "set_pump_state", "data": {"pump_index": 1, "state": "on"}}',
    '{"type": "set_sec_per_liter", "data": 213}',
    '{"type": "echo", "data": ' + "[" * 20_000 + "]" * 20_000 + "}",
    '{"type": "echo", "data": "\\ud800"}',
    '{"type": "echo", "data": "' + "x" * MAX_FRAME + '"}',
]


@pytest.mark.parametrize(("text", "frame"), FROM_A_GUI)
def test_what_a_gui_says_is_understood(text: str, frame: Frame) -> None:
    assert Decoder().feed(text) == [frame]
    assert Decoder().feed(text.encode()) == [frame]


@pytest.mark.parametrize(("text", "frame"), FROM_A_GUI)
def test_what_a_simulated_gui_says_is_what_was_meant(text: str, frame: Frame) -> None:
    assert Decoder().feed(encode_frame(frame)) == [frame]


@pytest.mark.parametrize(("text", "answer"), TO_A_GUI)
def test_what_we_say_is_what_the_seed_shows(text: str, answer: Answer) -> None:
    assert json.loads(encode(answer)) == json.loads(text)
    assert AnswerDecoder().feed(encode(answer)) == [answer]


@pytest.mark.parametrize("text", NO_MESSAGES, ids=lambda text: text[:60])
def test_what_is_no_message_is_a_wire_error_with_a_text(text: str) -> None:
    with pytest.raises(WireError) as error:
        Decoder().feed(text)
    assert str(error.value)


def test_bytes_that_are_no_text_are_a_wire_error() -> None:
    with pytest.raises(WireError):
        Decoder().feed(b'{"type": "echo", "data": "\xff"}')


def test_a_number_stays_as_it_was_said() -> None:
    assert encode(SecPerLiter(213)) == '{"type":"sec_per_liter","data":213}'
    assert encode(SecPerLiter(213.5)) == '{"type":"sec_per_liter","data":213.5}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
finite = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
pumps = st.integers(0, 999)
frames = st.one_of(
    st.builds(Blend, finite, st.dictionaries(st.text(), finite)),
    st.builds(Refill, pumps),
    st.builds(SetSecPerLiter, finite),
    st.builds(SetPump, pumps, enabled=st.booleans()),
    st.builds(SetPump, pumps, refill_time=finite),
    st.builds(SetPump, pumps, speed_ratio=finite),
    st.sampled_from([Stop(), GetBlendStatus(), GetConfig(), GetPumpsStates(), ReloadConfig()]),
)


@given(frames)
def test_what_is_encoded_is_decoded_to_the_same(frame: Frame) -> None:
    assert Decoder().feed(encode_frame(frame)) == [frame]


@given(st.text() | st.binary())
def test_anything_is_frames_or_a_wire_error(data: str | bytes) -> None:
    with contextlib.suppress(WireError):
        assert len(Decoder().feed(data)) == 1


@given(st.sampled_from([text for text, _ in FROM_A_GUI]), json_values)
def test_any_data_is_a_frame_or_a_wire_error(text: str, data: object) -> None:
    message = {**json.loads(text), "data": data}
    with contextlib.suppress(WireError):
        assert len(Decoder().feed(json.dumps(message))) == 1


@given(json_values)
def test_an_echo_says_the_same_back(data: object) -> None:
    text = json.dumps({"type": "echo", "data": data})
    try:
        (frame,) = Decoder().feed(text)
    except WireError:  # a lone surrogate, or an integer that is none elsewhere
        return
    assert isinstance(frame, Echo)
    assert json.loads(encode(frame)) == json.loads(text)
