"""What the frames of today's firmware mean, whose types are opcodes of one byte (`types` =
"opcodes"): one registry.

    01   amount (1), then amount times: node_addr (2)  uuid (16)       who is in the mesh
    02   uuid (16)                                                     a node has joined
    03                                                                 the root has restarted
    05   latitude (8)  longitude (8)                                   where a node is: doubles
    D    amount (1), then amount times: data_id (1)  data              a node's data

The length of a value follows from its data_id (the setting ``data_ids``). Everything else (04, a
table of routes, among it) and 03 are passed on as they are. Source: the firmware's and its server's
published code, of June 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from patchbay_mesh.wire.content import Content, Data, Passed, Value, joined, network
from patchbay_mesh.wire.uart import Frame, WireError

NETWORK: Final = b"\x01"
JOINED: Final = b"\x02"
RESTARTED: Final = b"\x03"
POSITION: Final = b"\x05"
DATA: Final = b"D"

GPS: Final = b"GPS"
POSITION_BYTES: Final = 16


class Opcodes:
    """Reads frames. ``data_ids`` are texts such as ``1:GPS:6``: id, type, length."""

    def __init__(self, data_ids: Sequence[str]) -> None:
        self._types: Mapping[int, tuple[bytes, int]] = {
            int(id): (type.encode(), int(length))
            for id, type, length in (one.split(":") for one in data_ids)
        }
        self._readers: dict[bytes, Callable[[Frame], Content]] = {
            NETWORK: network,
            JOINED: joined,
            RESTARTED: lambda frame: Passed(frame, restarted=True),
            POSITION: _position,
            DATA: self._data,
        }

    def parse(self, frame: Frame) -> Content:
        """What a frame says. Raises WireError if it does not fit its opcode."""
        reader = self._readers.get(frame.type)
        return Passed(frame) if reader is None else reader(frame)

    def _data(self, frame: Frame) -> Data:
        payload = frame.payload
        if not payload:
            raise WireError("D without a number of values")
        values: list[Value] = []
        place, size = 1, len(payload)
        for _ in range(payload[0]):
            if place >= size:
                raise WireError(f"D ends after {len(values)} of {payload[0]} values")
            known = self._types.get(payload[place])
            if known is None:
                raise WireError(f"D with the data id {payload[place]}, which is not in data_ids")
            type, length = known
            end = place + 1 + length
            if end > size:
                raise WireError(f"D ends within a value: {len(values)} of {payload[0]} are whole")
            values.append(Value(type, payload[place + 1 : end]))
            place = end
        if place != size:
            raise WireError(f"D has {size - place} bytes after its last value")
        return Data(frame.node, tuple(values))


def _position(frame: Frame) -> Data:
    if len(frame.payload) != POSITION_BYTES:
        raise WireError(f"05 with {len(frame.payload)} bytes: a position has {POSITION_BYTES}")
    return Data(frame.node, (Value(GPS, frame.payload),))
