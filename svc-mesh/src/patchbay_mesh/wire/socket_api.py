r"""The socket API: what client programs ask over TCP, and what they are answered.

    [GET] type (3) node_addr (2)      the latest value of a node, or with address 0 of all; or the
    [GET] node_addr (2) type (3)      other way round
    [CMD] command (5) payload         to the root, as it stands
    command (5) ...                   one of `COMMANDS`
    [REQ] node_addr (2) payload       to a node, as the answer to its request
    [syn] 00   or   [syn] 01          from now on: all that the nodes say (01: with a length)

    S type (3) data_length (1) size_n (1) ( node_addr (2) data ) ...      values
    S ...                                                                 accepted
    F length (1) text                                                     refused
    [ack] 00,  then  node_addr (2) msg_type (3) payload  each             to who listens

A request is complete at its fixed length, at the end mark ``[E]``, when the peer has said all, or
after a moment without a byte. With the end mark several may follow on a connection, and answers
end in it too. Source: the seed's "socket protocal", and what clients in use send.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from patchbay_mesh.wire.content import REQUEST
from patchbay_mesh.wire.uart import COMMAND_BYTES, MAX_MESSAGE, Frame, WireError

MAX_REQUEST: Final = 65_536
"""Bytes of one request: a robot's status (W-RBT) is the longest, some kilobytes."""

MAX_LISTED: Final = 255
"""Nodes in one answer: their number stands in one byte."""

END_MARK: Final = b"[E]"
GET: Final = b"[GET]"
COMMAND: Final = b"[CMD]"
REPLY: Final = b"[REQ]"
LISTEN: Final = b"[syn]"
LISTENING: Final = b"[ack]\x00"
GET_LENGTH: Final = len(GET) + 5
LISTEN_LENGTH: Final = len(LISTEN) + 1

NODE_NOT_FOUND: Final = "Node Not Found"
DATA_TYPE_NOT_FOUND: Final = "Data Type Not Found"
UNKNOWN_COMMAND: Final = "Unknown Command"
SERIAL_NOT_READY: Final = "Serial Not Ready"
BAD_REQUEST: Final = "Bad Request"

GetOrder = Literal["type", "node"]
Kind = Literal["address and message", "text", "json", "nothing"]

COMMANDS: Final[dict[bytes, Kind]] = {
    b"SEND-": "address and message",
    b"BCAST": "address and message",
    b"NINFO": "nothing",
    b"RST-R": "nothing",
    b"CLEAN": "nothing",
    b"SENDI": "nothing",
    b"GETDF": "nothing",
    b"STATE": "nothing",
    b"ACT-C": "nothing",
    b"NSTAT": "nothing",
    b"W-LOG": "text",
    b"W-RBT": "json",
    REPLY: "address and message",
}
"""Every command and what follows it. What follows "nothing" is ignored: clients in use always
append an address."""


class Get(Struct, frozen=True):
    """The latest value of this type; of all active nodes if ``node`` is 0."""

    type: bytes
    node: int


class Raw(Struct, frozen=True):
    """To the root, as it stands: five bytes of command, and a payload."""

    content: bytes


class Call(Struct, frozen=True):
    """One of `COMMANDS`. ``payload`` is the message, text or JSON."""

    name: bytes
    node: int = 0
    payload: bytes = b""


class Listen(Struct, frozen=True):
    """The connection listens from now on. ``lengths``: each message is preceded by its length."""

    lengths: bool


class Refused(Struct, frozen=True):
    """A request that is none: the text is the answer."""

    text: str


Asked: TypeAlias = Get | Raw | Call | Listen | Refused


class Request(Struct, frozen=True):
    """What was asked. ``marked``: it had an end mark, so has its answer, and more may follow."""

    asked: Asked
    marked: bool = False


class Decoder:
    """Bytes in, requests out. Say `finish` when nothing more comes, or has not come for a while.

    After a `Request` that is not marked, what follows on the connection means nothing. It holds
    `MAX_REQUEST` bytes at most.
    """

    def __init__(self, end_mark: bytes = END_MARK, get_order: GetOrder = "type") -> None:
        self._mark = end_mark
        self._order: GetOrder = get_order
        self._held = bytearray()
        self._searched = 0
        """Up to here there is no end mark: a request that comes byte by byte is searched once."""
        self._over = False
        self._marks = False

    @property
    def waiting(self) -> bool:
        """Has a request begun that is not complete?"""
        return bool(self._held) and not self._over

    def feed(self, data: bytes) -> list[Request]:
        """The requests that are complete with these bytes."""
        if self._over:
            return []
        self._held += data
        requests: list[Request] = []
        while self._held and not self._over:
            request = self._next()
            if request is None:
                break
            requests.append(request)
        return requests

    def finish(self) -> list[Request]:
        """What has come is all there is of the request."""
        if not self.waiting:
            return []
        held = bytes(self._held)
        self._end()
        return [Request(read(held, self._order))]

    def _next(self) -> Request | None:
        held, mark = self._held, self._mark
        name = bytes(held[:COMMAND_BYTES])
        fixed = _fixed_length(name)
        place = -1
        if mark and len(held) >= fixed:
            place = held.find(mark, max(fixed, self._searched))
            self._searched = place if place >= 0 else max(0, len(held) - len(mark) + 1)
        if place >= 0 and (not fixed or place == fixed or name in COMMANDS):
            request = bytes(held[: fixed or place])
            del held[: place + len(mark)]
            self._searched, self._marks = 0, True
            return Request(read(request, self._order), marked=True)
        if fixed and len(held) >= fixed and not self._marks:
            request = bytes(held[:fixed])
            self._end()
            return Request(read(request, self._order))
        if len(held) > MAX_REQUEST:
            self._end()
            return Request(Refused(BAD_REQUEST), marked=self._marks)
        return None

    def _end(self) -> None:
        """What follows on the connection means nothing."""
        self._over = True
        self._held = bytearray()


def read(request: bytes, order: GetOrder = "type") -> Asked:
    """What one whole request asks for, without its end mark."""
    name, rest = request[:COMMAND_BYTES], request[COMMAND_BYTES:]
    if name == GET:
        return _get(rest, order)
    if name == LISTEN:
        return Listen(rest == b"\x01") if rest in (b"\x00", b"\x01") else Refused(BAD_REQUEST)
    if name == COMMAND:
        return Raw(rest) if len(rest) >= COMMAND_BYTES else Refused(BAD_REQUEST)
    kind = COMMANDS.get(name)
    if kind is None:
        return Refused(UNKNOWN_COMMAND if len(name) == COMMAND_BYTES else BAD_REQUEST)
    if kind == "address and message":
        if len(rest) < 2 or len(rest) - 2 > MAX_MESSAGE:
            return Refused(BAD_REQUEST)
        return Call(name, int.from_bytes(rest[:2], "big"), rest[2:])
    if kind == "nothing":
        return Call(name)
    if kind == "json" and not _is_json(rest):
        return Refused(BAD_REQUEST)
    return Call(name, payload=rest)


def _fixed_length(name: bytes) -> int:
    """The length of a request that begins so; 0 for one that ends otherwise."""
    if name == GET:
        return GET_LENGTH
    if name == LISTEN:
        return LISTEN_LENGTH
    return COMMAND_BYTES if COMMANDS.get(name) == "nothing" else 0


def _get(rest: bytes, order: GetOrder) -> Asked:
    """Which comes first is told by what is printable: a type is three letters."""
    if len(rest) != 5:
        return Refused(BAD_REQUEST)
    p1, p2, p3, p4, p5 = (0x20 <= byte <= 0x7E for byte in rest)
    if p1 and p2 and p3 and not (p4 and p5):
        order = "type"
    elif p3 and p4 and p5 and not (p1 and p2):
        order = "node"
    if order == "type":
        return Get(rest[:3], int.from_bytes(rest[3:], "big"))
    return Get(rest[2:], int.from_bytes(rest[:2], "big"))


def _is_json(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


# Requests, as a client writes them


def encode(asked: Get | Raw | Call | Listen) -> bytes:
    """A request without an end mark; [GET] with the type first. Raises WireError."""
    match asked:
        case Get():
            return GET + asked.type + asked.node.to_bytes(2, "big")
        case Raw():
            return COMMAND + asked.content
        case Listen():
            return LISTEN + bytes([asked.lengths])
    kind = COMMANDS.get(asked.name)
    if kind is None:
        raise WireError(f"{asked.name!r} is no command")
    address = asked.node.to_bytes(2, "big") if kind == "address and message" else b""
    return asked.name + address + asked.payload


# Answers


def values(type: bytes, found: Sequence[tuple[int, bytes]]) -> bytes:
    """The answer to `Get`: address and value of each node. All values have one length."""
    size = len(found[0][1])
    parts = [node.to_bytes(2, "big") + data for node, data in found]
    return b"S" + type + bytes([size, len(found)]) + b"".join(parts)


def accepted(more: bytes = b"") -> bytes:
    """A command was taken."""
    return b"S" + more


def refused(text: str) -> bytes:
    """A request was not."""
    content = text.encode()
    return b"F" + bytes([len(content)]) + content


def pushed(frame: Frame, *, lengths: bool = False) -> bytes:
    """A frame as it goes to who listens; a node's request under its own name."""
    if frame.type == REQUEST:
        content = REPLY + frame.node.to_bytes(2, "big") + frame.payload
    else:
        content = frame.content
    return struct.pack(">H", len(content)) + content if lengths else content
