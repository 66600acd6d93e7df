"""What the data of nodes say, and how a type is added."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_mesh.data_types import DATA_TYPES, DataType, gps, gps_bytes, readings
from patchbay_mesh.messages import Value
from patchbay_mesh.rules import Node, report, state


def test_gps_is_longitude_then_latitude_in_thousandths() -> None:
    data = bytes.fromhex("02f001be9200")
    assert gps(data) == {"latitude": 37.566, "longitude": 126.978}
    assert gps_bytes(37.566, 126.978) == data


def test_south_and_west_are_negative() -> None:
    assert gps(gps_bytes(-33.869, -70.66)) == {"latitude": -33.869, "longitude": -70.66}


@given(st.integers(-90_000, 90_000), st.integers(-180_000, 180_000))
def test_every_place_is_read_as_it_is_written(latitude: int, longitude: int) -> None:
    place = gps(gps_bytes(latitude / 1000, longitude / 1000))
    assert place == {"latitude": latitude / 1000, "longitude": longitude / 1000}


def test_a_value_of_another_length_and_an_unknown_type_say_nothing() -> None:
    assert readings("GPS", b"12345") == {}
    assert readings("XYZ", b"123456") == {}


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(3248.83, 12.0), (90.001, 0.0), (-90.001, 0.0), (0.0, 180.001)]
)
def test_a_place_that_is_not_on_earth_is_null(latitude: float, longitude: float) -> None:
    data = gps_bytes(latitude, longitude)
    assert gps(data) is None
    node = Node(5)
    report(node, [Value("GPS", data)], "2026-01-02T03:04:05.678Z", 64)
    assert state(node).gps is None


def test_a_new_type_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = DataType(lengths=(2,), field="celsius", read=lambda data: int.from_bytes(data) / 10)
    monkeypatch.setitem(DATA_TYPES, "TMP", kind)
    node = Node(5)
    report(node, [Value("TMP", b"\x00\xd7")], "2026-01-02T03:04:05.678Z", 64)
    shown = state(node)
    assert shown.read == {"celsius": 21.5}
    assert shown.gps is None
