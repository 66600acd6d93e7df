"""What kinds of data nodes report: one registry, by the three letters of the type.

A type that stands here has a length and something to read it with; any other is bytes to us and to
our clients. A new type is one entry in `DATA_TYPES`. Source: the seed's "Pre-Define".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

DEGREE: Final = 1000
"""GPS is in thousandths of a degree."""


@dataclass(frozen=True, slots=True)
class DataType:
    """A type with a form: ``field`` is the key under which a node's state shows what it says."""

    length: int
    field: str
    read: Callable[[bytes], Any]


def gps(data: bytes) -> dict[str, float]:
    """Longitude, then latitude, three bytes each, little endian, signed, thousandths of a degree.

    ``02f001 be9200`` is longitude 126.978, latitude 37.566.
    """
    longitude = int.from_bytes(data[:3], "little", signed=True)
    latitude = int.from_bytes(data[3:6], "little", signed=True)
    return {"latitude": latitude / DEGREE, "longitude": longitude / DEGREE}


def gps_bytes(latitude: float, longitude: float) -> bytes:
    """The other way round, rounded to a thousandth of a degree."""
    return b"".join(
        round(degrees * DEGREE).to_bytes(3, "little", signed=True)
        for degrees in (longitude, latitude)
    )


DATA_TYPES: Final[dict[str, DataType]] = {
    "GPS": DataType(length=6, field="gps", read=gps),
}


def readings(type: str, data: bytes) -> dict[str, Any]:
    """What a value says, by the field that shows it; empty for bytes that only their owner knows.

    So is a value of another length than its type has.
    """
    known = DATA_TYPES.get(type)
    if known is None or len(data) != known.length:
        return {}
    return {known.field: known.read(data)}
