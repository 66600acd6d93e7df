"""The table of commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.errors import Rejected
from patchbay_lantern.commands import COMMANDS, KINDS, POWER, Byte, Kind, Light, Registry
from patchbay_lantern.messages import Order

BRIGHTNESS = Kind("BRIGHTNESS", 0x21, Byte(), sets="brightness", label="Brightness")
WITH_BRIGHTNESS = Registry([*KINDS, BRIGHTNESS])


@pytest.mark.parametrize(
    ("command", "value", "order", "packed"),
    [
        ("ON", None, Order("ON"), (0x12, b"")),
        ("ON", "", Order("ON"), (0x12, b"")),
        ("OFF", None, Order("OFF"), (0x13, b"")),
        ("COLOR", "ff0000", Order("COLOR", "ff0000"), (0x20, b"\xff\x00\x00")),
        ("COLOR", "#FF00aB", Order("COLOR", "ff00ab"), (0x20, b"\xff\x00\xab")),
        ("COLOR", "000000", Order("COLOR", "000000"), (0x20, b"\x00\x00\x00")),
        ("BRIGHTNESS", 128, Order("BRIGHTNESS", "128"), (0x21, b"\x80")),
        ("BRIGHTNESS", "007", Order("BRIGHTNESS", "7"), (0x21, b"\x07")),
    ],
)
def test_a_command_has_one_normal_form_and_its_bytes(
    command: str, value: object, order: Order, packed: tuple[int, bytes]
) -> None:
    assert WITH_BRIGHTNESS.order(command, value) == order
    assert WITH_BRIGHTNESS.pack(order) == packed
    assert WITH_BRIGHTNESS.unpack(*packed) == order


@pytest.mark.parametrize(
    ("command", "value", "code"),
    [
        ("on", None, "unknown_command"),
        ("BLINK", None, "unknown_command"),
        (None, None, "unknown_command"),
        (["ON"], None, "unknown_command"),
        ("ON", "ff0000", "bad_value"),
        ("ON", 0, "bad_value"),
        ("ON", False, "bad_value"),
        ("COLOR", None, "bad_value"),
        ("COLOR", "", "bad_value"),
        ("COLOR", "red", "bad_value"),
        ("COLOR", "ff000", "bad_value"),
        ("COLOR", "ff00000", "bad_value"),
        ("COLOR", "##f0000", "bad_value"),
        ("COLOR", "ff0000\n", "bad_value"),
        ("COLOR", "ｆｆ００００", "bad_value"),
        ("COLOR", 0xFF0000, "bad_value"),
        ("BRIGHTNESS", 256, "bad_value"),
        ("BRIGHTNESS", -1, "bad_value"),
        ("BRIGHTNESS", True, "bad_value"),
        ("BRIGHTNESS", 1.5, "bad_value"),
        ("BRIGHTNESS", None, "bad_value"),
    ],
)
def test_what_is_no_command_is_refused_with_its_code(
    command: object, value: object, code: str
) -> None:
    with pytest.raises(Rejected) as caught:
        WITH_BRIGHTNESS.order(command, value)
    assert caught.value.code == code


def test_a_value_that_has_grown_is_read_as_before() -> None:
    assert COMMANDS.unpack(0x20, b"\xff\x00\x00\x99\x99") == Order("COLOR", "ff0000")
    assert COMMANDS.unpack(0x12, b"new") == Order("ON")
    assert WITH_BRIGHTNESS.unpack(0x21, b"\x80\x00") == Order("BRIGHTNESS", "128")


def test_what_a_lantern_cannot_obey_it_ignores() -> None:
    assert COMMANDS.unpack(0x21, b"\x80") is None
    assert COMMANDS.unpack(0x20, b"\xff\x00") is None
    assert WITH_BRIGHTNESS.unpack(0x21, b"") is None


def test_the_last_command_of_each_thing_is_how_a_lantern_shines() -> None:
    light = Light()
    assert (light.on, light.color, COMMANDS.present(light)) == (None, None, [])
    for order in (Order("ON"), Order("COLOR", "00ff00"), Order("OFF"), Order("COLOR", "0000ff")):
        light = COMMANDS.obey(light, order)
    assert (light.on, light.color) == (False, "0000ff")
    assert COMMANDS.present(light) == [Order("COLOR", "0000ff"), Order("OFF")]


def test_on_or_off_is_told_last_whatever_the_table_says() -> None:
    light = WITH_BRIGHTNESS.obey(Light(), Order("ON"))
    light = WITH_BRIGHTNESS.obey(light, Order("BRIGHTNESS", "9"))
    assert WITH_BRIGHTNESS.present(light) == [Order("BRIGHTNESS", "9"), Order("ON")]
    assert WITH_BRIGHTNESS.for_a_lantern(light) == [Order("ON"), Order("BRIGHTNESS", "9")]
    dark = WITH_BRIGHTNESS.obey(light, Order("OFF"))
    assert WITH_BRIGHTNESS.for_a_lantern(dark) == [Order("BRIGHTNESS", "9"), Order("OFF")]
    assert COMMANDS.present(light) == [Order("ON")]


def test_types_and_names_are_told_apart() -> None:
    assert len({kind.type for kind in KINDS}) == len({kind.name for kind in KINDS}) == len(KINDS)
    assert [kind.name for kind in KINDS if kind.sets == POWER] == ["ON", "OFF"]


@given(st.integers(0, 255), st.binary(max_size=10))
def test_any_frame_is_an_order_that_is_written_the_same_or_ignored(type: int, data: bytes) -> None:
    order = WITH_BRIGHTNESS.unpack(type, data)
    if order is not None:
        again, packed = WITH_BRIGHTNESS.pack(order)
        assert again == type
        assert data.startswith(packed)
        assert WITH_BRIGHTNESS.order(order.command, order.value) == order
