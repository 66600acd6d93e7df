"""What kinds of data nodes report: one registry, by the three letters of the type.

A type that stands here has a length and something to read it with; any other is bytes to us and to
our clients. A new type is one entry in `DATA_TYPES`. Source: the seed's "Pre-Define".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

DEGREE: Final = 1000
"""GPS is in thousandths of a degree."""

DOUBLES: Final = Struct("<dd")
"""GPS of today's firmware: latitude and longitude."""


@dataclass(frozen=True, slots=True)
class DataType:
    """A type with a form, of one of ``lengths`` bytes. ``field`` is the key under which a node's
    state shows its value. ``read`` returns None for a value that is physically impossible: a
    garbled frame."""

    lengths: tuple[int, ...]
    field: str
    read: Callable[[bytes], Any]


def gps(data: bytes) -> dict[str, float] | None:
    """Longitude, then latitude, three bytes each, little endian, signed, thousandths of a degree:
    ``02f001 be9200`` is longitude 126.978, latitude 37.566.

    Of today's firmware latitude, then longitude, as doubles, little endian, in degrees. None beyond
    90 and 180 degrees.
    """
    if len(data) == DOUBLES.size:
        latitude, longitude = DOUBLES.unpack(data)
    else:
        longitude = int.from_bytes(data[:3], "little", signed=True) / DEGREE
        latitude = int.from_bytes(data[3:6], "little", signed=True) / DEGREE
    if not (abs(longitude) <= 180 and abs(latitude) <= 90):  # nor what is no number
        return None
    return {"latitude": latitude, "longitude": longitude}


def gps_bytes(latitude: float, longitude: float) -> bytes:
    """The other way round, rounded to a thousandth of a degree."""
    return b"".join(
        round(degrees * DEGREE).to_bytes(3, "little", signed=True)
        for degrees in (longitude, latitude)
    )


DATA_TYPES: Final[dict[str, DataType]] = {
    "GPS": DataType(lengths=(6, DOUBLES.size), field="gps", read=gps),
}


def readings(type: str, data: bytes) -> dict[str, Any]:
    """A decoded value, by the field that shows it. Empty for a type that is not in the registry, a
    value of another length than its type has, and one outside of its range."""
    known = DATA_TYPES.get(type)
    if known is None or len(data) not in known.lengths:
        return {}
    read = known.read(data)
    return {} if read is None else {known.field: read}
