"""What the root's frames mean: one registry, by message type.

    [D]   size_n (1), then size_n times: data_type (3)  length (1)  data     a node's data
    NOD   uuid (16)                                                          a node has joined
    NET   amount (1), then amount times: node_addr (2)  uuid (16)            who is in the mesh

These are handled here. Everything else, known or not, is passed on as it is: `Passed`. Of the types
that are passed on, `[M]` (size_n (1), message) is the one with a form of its own.
A new type is one entry in `MESSAGE_TYPES`. Source: the seed's "KEY STRUCT" and message_opcodes.py;
NOD, NET and RST are what later firmware says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from patchbay_mesh.wire.uart import ADDRESS_BYTES, TYPE_BYTES, Frame, WireError

UUID_BYTES: Final = 16
MAX_VALUES: Final = 255
MAX_DATA: Final = 255

DATA: Final = b"[D]"
MESSAGE: Final = b"[M]"
JOINED: Final = b"NOD"
NETWORK: Final = b"NET"
RESTARTED: Final = b"RST"
REQUEST: Final = b"<Q>"
RESPONSE: Final = b"<R>"
"""What the application answers to a node's `REQUEST`, before its own bytes."""


class Value(NamedTuple):
    """One value: its type has three bytes."""

    type: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """A node reports these values."""

    node: int
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Members:
    """These nodes are in the mesh, says the root: address and uuid of each."""

    nodes: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Passed:
    """A frame that is not for us: it goes to who listens. ``restarted``: it means that the root has
    restarted, by its one-byte opcode."""

    frame: Frame
    restarted: bool = False


Content: TypeAlias = Data | Members | Passed


def parse(frame: Frame) -> Content:
    """What a frame says. Raises WireError if it does not fit its type."""
    reader = MESSAGE_TYPES.get(frame.type)
    return Passed(frame) if reader is None else reader(frame)


def said(type: bytes, payload: bytes) -> bytes:
    """The message itself: of `[M]` what its length says, if it is right; of others all."""
    if type == MESSAGE and payload and payload[0] == len(payload) - 1:
        return payload[1:]
    return payload


def _data(frame: Frame) -> Data:
    payload = frame.payload
    if not payload:
        raise WireError("[D] without a number of values")
    values: list[Value] = []
    place, size = 1, len(payload)
    for _ in range(payload[0]):
        start = place + TYPE_BYTES + 1
        if start > size:
            raise WireError(f"[D] ends within a value: {len(values)} of {payload[0]} are whole")
        end = start + payload[start - 1]
        if end > size:
            raise WireError(f"[D] ends within a value: {len(values)} of {payload[0]} are whole")
        values.append(Value(payload[place : start - 1], payload[start:end]))
        place = end
    if place != size:
        raise WireError(f"[D] has {size - place} bytes after its last value")
    return Data(frame.node, tuple(values))


def joined(frame: Frame) -> Members:
    """The node of this frame has joined. Raises WireError."""
    if len(frame.payload) != UUID_BYTES:
        raise WireError(f"joined with {len(frame.payload)} bytes: a uuid has {UUID_BYTES}")
    return Members(((frame.node, frame.payload),))


def network(frame: Frame) -> Members:
    """Who is in the mesh. Raises WireError."""
    payload = frame.payload
    one = ADDRESS_BYTES + UUID_BYTES
    if not payload or len(payload) != 1 + payload[0] * one:
        raise WireError(f"network with {len(payload)} bytes does not fit its amount")
    return Members(
        tuple(
            (int.from_bytes(payload[at : at + 2], "big"), payload[at + 2 : at + one])
            for at in range(1, len(payload), one)
        )
    )


MESSAGE_TYPES: Final[dict[bytes, Callable[[Frame], Content]]] = {
    DATA: _data,
    JOINED: joined,
    NETWORK: network,
    MESSAGE: Passed,
    RESTARTED: Passed,
    REQUEST: Passed,
}
"""Every message type that we know, and what reads it. `Passed`: it goes to who listens."""


def data_frame(node: int, values: Sequence[Value]) -> Frame:
    """A frame with a node's values. Raises WireError for what a frame cannot hold."""
    if len(values) > MAX_VALUES or any(
        len(one.type) != TYPE_BYTES or len(one.data) > MAX_DATA for one in values
    ):
        raise WireError("a frame holds 255 values of 255 bytes, each with a type of 3 bytes")
    parts = [one.type + bytes([len(one.data)]) + one.data for one in values]
    return Frame(node, DATA, bytes([len(values)]) + b"".join(parts))


def message_frame(node: int, message: bytes) -> Frame:
    """A frame with a node's message. Raises WireError for one over 255 bytes."""
    if len(message) > MAX_DATA:
        raise WireError(f"a message of {len(message)} bytes: at most {MAX_DATA}")
    return Frame(node, MESSAGE, bytes([len(message)]) + message)


def network_frame(node: int, nodes: Sequence[tuple[int, bytes]]) -> Frame:
    """A frame that says who is in the mesh."""
    members = b"".join(address.to_bytes(2, "big") + uuid for address, uuid in nodes)
    return Frame(node, NETWORK, bytes([len(nodes)]) + members)
