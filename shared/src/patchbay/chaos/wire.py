"""MongoDB's messages, as far as a proxy needs them that refuses writes.

A message is ``length, request id, response to, op code`` (four little-endian int32), then the body.
OP_MSG has flags, then sections: one document (kind 0), and sequences of documents (kind 1) that
belong into it under a name. Source: MongoDB's manual, "MongoDB Wire Protocol".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from bson import decode, encode
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

OP_REPLY: Final = 1
OP_QUERY: Final = 2004
OP_MSG: Final = 2013

CHECKSUM_PRESENT: Final = 1
MORE_TO_COME: Final = 2
HEADER: Final = struct.Struct("<iiii")
MAX_MESSAGE: Final = 48_000_000 + 16_384
"""Bytes of a message: the server's ``maxMessageSizeBytes`` and room for the envelope."""

STATEMENTS: Final = {"insert": "documents", "update": "updates", "delete": "deletes"}
"""Command -> the sequence of what it writes."""

HELLO: Final = frozenset({"hello", "ismaster"})

_RAW: Final = CodecOptions(document_class=RawBSONDocument)
_INT32: Final = struct.Struct("<i")
_UINT32: Final = struct.Struct("<I")


@dataclass(slots=True)
class Command:
    """An OP_MSG with the document and its sequences apart, each document as bytes."""

    request_id: int
    flags: int
    body: dict[str, Any]
    sequences: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return next(iter(self.body), "")

    @property
    def collection(self) -> str | None:
        """The collection that a command on one works on."""
        named = self.body.get(self.name)
        return named if isinstance(named, str) else None

    @property
    def answered(self) -> bool:
        """A client that does not want an answer has set moreToCome."""
        return not self.flags & MORE_TO_COME

    def statements(self) -> list[bytes]:
        """What it writes, a document each; taken from the body if they stand there."""
        name = STATEMENTS.get(self.name)
        if name is None:
            return []
        if name in self.body:
            self.sequences[name] = [bytes(one.raw) for one in self.body.pop(name)]
        return self.sequences.get(name, [])

    def encoded(self, statements: list[bytes]) -> bytes:
        """The message, with these in the place of what it wrote."""
        sequences = {**self.sequences, STATEMENTS[self.name]: statements}
        parts = [_UINT32.pack(self.flags & ~CHECKSUM_PRESENT), b"\0", encode(self.body)]
        for name, documents in sequences.items():
            content = name.encode() + b"\0" + b"".join(documents)
            parts += [b"\1", _INT32.pack(4 + len(content)), content]
        return framed(self.request_id, 0, OP_MSG, b"".join(parts))


def header(message: bytes) -> tuple[int, int, int, int]:
    """Length, request id, response to, op code."""
    length, request_id, response_to, op_code = HEADER.unpack_from(message)
    return length, request_id, response_to, op_code


def framed(request_id: int, response_to: int, op_code: int, body: bytes) -> bytes:
    """A message with its header."""
    return HEADER.pack(HEADER.size + len(body), request_id, response_to, op_code) + body


def command(message: bytes) -> Command:
    """An OP_MSG, decoded. Raises ValueError, bson.errors.InvalidBSON or struct.error."""
    _, request_id, _, _ = header(message)
    (flags,) = _UINT32.unpack_from(message, HEADER.size)
    end = len(message) - (4 if flags & CHECKSUM_PRESENT else 0)
    found = Command(request_id, flags, {})
    at = HEADER.size + 4
    while at < end:
        kind = message[at]
        (size,) = _INT32.unpack_from(message, at + 1)
        section = message[at + 1 : at + 1 + size]
        if kind == 0:
            found.body = dict(decode(section, _RAW))
        elif kind == 1:
            name, _, documents = section[4:].partition(b"\0")
            found.sequences[name.decode()] = _split(documents)
        else:
            raise ValueError(f"unknown section kind {kind}")
        at += 1 + size
    return found


def answer(message: bytes) -> dict[str, Any]:
    """The document of an OP_MSG that a server sent."""
    return command(message).body


def reply(response_to: int, document: dict[str, Any], flags: int = 0) -> bytes:
    """An OP_MSG as a server answers."""
    body = _UINT32.pack(flags & ~CHECKSUM_PRESENT) + b"\0" + encode(document)
    return framed(0, response_to, OP_MSG, body)


def without_compression(message: bytes) -> bytes:
    """The same message; a greeting asks for no compression any more."""
    _, request_id, _, op_code = header(message)
    if op_code == OP_MSG:
        found = command(message)
        if found.name.lower() not in HELLO or not found.body.get("compression"):
            return message
        found.body["compression"] = []
        flags = _UINT32.pack(found.flags & ~CHECKSUM_PRESENT)
        return framed(request_id, 0, OP_MSG, flags + b"\0" + encode(found.body))
    if op_code == OP_QUERY:  # a driver's first greeting
        start = message.index(b"\0", HEADER.size + 4) + 9
        query = dict(decode(message[start:], _RAW))
        if not query.get("compression"):
            return message
        query["compression"] = []
        return framed(request_id, 0, OP_QUERY, message[HEADER.size : start] + encode(query))
    return message


def _split(documents: bytes) -> list[bytes]:
    found = []
    at = 0
    while at < len(documents):
        (size,) = _INT32.unpack_from(documents, at)
        if size < 5:
            raise ValueError("a document of less than five bytes")
        found.append(documents[at : at + size])
        at += size
    return found
