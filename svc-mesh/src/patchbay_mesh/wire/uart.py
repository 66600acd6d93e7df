r"""The serial line to the root of the mesh: frames in, commands out.

    ff  node_addr (2, big endian)  msg_type (3)  payload ...  fe

Between ``ff`` and ``fe`` the bytes ff, fe and fa are sent as ``fa`` and the byte XOR fa (``fa 05``,
``fa 04``, ``fa 00``); any ``fa x`` is read as x XOR fa, since encoders in use escape more than they
must. Bytes outside of frames are boot logs. A command to the root is a line:

    SEND-  node_addr (2)  length (1)  message  \n      to a node
    BCAST  00 00          length (1)  message  \n      to all
    NINFO \n   RST-R \n   CLEAN \n                     to the root itself

or, as later firmware has it, a frame: ``ff``, then command, address and message escaped, ``fe``.
Source: the design note of the seed ("temp uart protocal"), and what encoders in use do beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final, Literal, NamedTuple, TypeAlias

START: Final = b"\xff"
END: Final = b"\xfe"
ESCAPE: Final = b"\xfa"
ESCAPE_XOR: Final = 0xFA
"""What an escaped byte is XORed with; later firmware uses 0xff (the setting ``escape_xor``)."""

MAX_FRAME: Final = 4096
"""Bytes of a frame's content. The root's own buffer has 1 KiB; a line that lost an end mark must
not fill our memory."""

_MAX_HELD: Final = 2 * MAX_FRAME
"""The longest frame on the line: every byte escaped."""

ADDRESS_BYTES: Final = 2
TYPE_BYTES: Final = 3
OPCODE_BYTES: Final = 1
"""The type of a message in today's firmware."""
COMMAND_BYTES: Final = 5
MAX_MESSAGE: Final = 255
"""A message's length stands in one byte."""

Framing = Literal["line", "frame"]

TO_A_NODE: Final = b"SEND-"
TO_ALL: Final = b"BCAST"
COMMANDS: Final[dict[bytes, bool]] = {
    TO_A_NODE: True,
    TO_ALL: True,
    b"NINFO": False,
    b"RST-R": False,
    b"CLEAN": False,
    b"SENDI": False,
    b"GETDF": False,
    b"STATE": False,
}
"""Every command that we know, and whether it has an address and a message. One that is not here can
be sent as it stands (`encode_raw`)."""


class WireError(Exception):
    """These bytes mean nothing here. The frame is set aside; the line goes on."""


class Frame(NamedTuple):
    """One frame. ``type`` has fewer bytes, and ``payload`` none, in a short frame."""

    node: int
    type: bytes
    payload: bytes = b""

    @property
    def content(self) -> bytes:
        """What stood between start and end, without escapes."""
        return self.node.to_bytes(ADDRESS_BYTES, "big") + self.type + self.payload


@dataclass(frozen=True, slots=True)
class Command:
    """A command to the root: with a message if its kind has one."""

    name: bytes
    node: int = 0
    message: bytes = b""


Wrap: TypeAlias = Callable[[bytes], bytes]
Undo: TypeAlias = Callable[[bytes], bytes | None]


def _wrapper(xor: int) -> Wrap:
    """What makes of a content a frame on the line, for one firmware."""
    escape, start, end = (ESCAPE + bytes([byte[0] ^ xor]) for byte in (ESCAPE, START, END))

    def wrap(content: bytes) -> bytes:
        # The escape goes first: the others bring more of it.
        escaped = content.replace(ESCAPE, escape).replace(START, start).replace(END, end)
        return START + escaped + END

    return wrap


def _reader(xor: int) -> Undo:
    """What reads what stands between start and end, for one firmware; None if an escape dangles."""
    read = [bytes([byte ^ xor]) for byte in range(256)]
    itself = read[ESCAPE[0]]

    def undo(raw: bytes) -> bytes | None:
        head, *pieces = raw.split(ESCAPE)
        parts = [head]
        pending = False  # the piece before was empty: this escape is the escaped byte itself
        for piece in pieces:
            if piece:
                parts += (itself, piece) if pending else (read[piece[0]], piece[1:])
                pending = False
            elif pending:
                parts.append(itself)
                pending = False
            else:
                pending = True
        return None if pending else b"".join(parts)

    return undo


class _WrapByXor(dict[int, Wrap]):
    """Made when they are first asked for: one call is a third of what a frame costs."""

    def __missing__(self, xor: int) -> Wrap:
        made = self[xor] = _wrapper(xor)
        return made


_wraps: Final = _WrapByXor()
_address: Final = Struct(">H").pack


class Decoder:
    """Bytes in, frames out; any split of the bytes. Nothing that arrives is an error.

    ``skipped`` counts bytes outside of frames, ``dropped`` frames that were cut off by a new start,
    too long, too short for an address, or ended by an escape. It holds 8 KiB at most.
    """

    def __init__(self, escape_xor: int = ESCAPE_XOR, type_bytes: int = TYPE_BYTES) -> None:
        self.skipped = 0
        self.dropped = 0
        self._payload_at = ADDRESS_BYTES + type_bytes
        self._undo = _reader(escape_xor)
        self._held: bytes | None = None
        """What has come of a frame that is not complete; None outside of one."""
        self._flooded = False
        """The frame has become too long: nothing of it counts until it ends."""

    @property
    def unfinished(self) -> bool:
        """Has a frame begun that has not ended?"""
        return self._held is not None or self._flooded

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes."""
        *ended, rest = data.split(END)
        frames: list[Frame] = []
        new, undo, payload_at = (
            tuple.__new__,
            self._undo,
            self._payload_at,
        )  # a frame costs half as much so
        outside = self._held is None and not self._flooded
        for part in ended:
            # Nearly always a part is one frame and nothing else.
            raw = part[1:] if outside and part.rfind(START) == 0 else self._begun(part, 1)
            outside, self._held = True, None
            if raw is None:
                continue
            content = undo(raw)
            if content is None or not ADDRESS_BYTES <= len(content) <= MAX_FRAME:
                self.dropped += 1
                continue
            node = content[0] << 8 | content[1]
            frames.append(new(Frame, (node, content[2:payload_at], content[payload_at:])))
        if rest:
            self._hold(self._begun(rest, 0))
        return frames

    def _begun(self, part: bytes, end: int) -> bytes | None:
        """What is there of the last frame that begins in ``part`` or before; None: there is none.

        ``end``: so many bytes of end mark follow it.
        """
        before, start, raw = part.rpartition(START)
        if not start:
            if self._flooded:
                self._flooded = not end
                return None
            if self._held is None:
                self.skipped += len(part) + end
                return None
            return self._held + part if self._held else part
        skipped, inner, cut_off = before.partition(START)
        if self._held is not None:
            self.dropped += bool(self._held or skipped)
        elif not self._flooded:
            self.skipped += len(skipped)
        if inner:
            self.dropped += sum(map(bool, cut_off.split(START)))
        self._held, self._flooded = None, False
        return raw

    def _hold(self, raw: bytes | None) -> None:
        self._held = raw
        if raw is not None and len(raw) > _MAX_HELD:
            self.dropped += 1
            self._held, self._flooded = None, True


def encode(frame: Frame, escape_xor: int = ESCAPE_XOR) -> bytes:
    """A frame as the root sends it."""
    node, type, payload = frame
    return _wraps[escape_xor](_address(node) + type + payload)


def encode_command(
    command: Command, framing: Framing = "line", escape_xor: int = ESCAPE_XOR
) -> bytes:
    """A command as the root reads it. Raises WireError for what it could not."""
    addressed = COMMANDS.get(command.name)
    if addressed is None:
        raise WireError(f"{command.name!r} is no command of the root")
    if not addressed:
        return encode_raw(command.name, framing, escape_xor)
    if len(command.message) > MAX_MESSAGE:
        raise WireError(f"a message of {len(command.message)} bytes: at most {MAX_MESSAGE}")
    if not 0 <= command.node <= 0xFFFF:
        raise WireError(f"{command.node} is no address of a node")
    address = command.node.to_bytes(ADDRESS_BYTES, "big")
    if framing == "frame":
        return encode_raw(command.name + address + command.message, framing, escape_xor)
    length = bytes([len(command.message)])
    return encode_raw(command.name + address + length + command.message)


def encode_raw(content: bytes, framing: Framing = "line", escape_xor: int = ESCAPE_XOR) -> bytes:
    """A command as it stands, and its end."""
    return _wraps[escape_xor](content) if framing == "frame" else content + b"\n"


class CommandDecoder:
    r"""What the root reads: commands by line, as `encode_command` writes them.

    A message goes by its length and may hold ``\n``; what we do not know, or does not end where it
    should, goes up to the next ``\n`` and is a `Command` with all of it as its name.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are complete with these bytes."""
        held = self._held + data
        commands: list[Command] = []
        while held:
            head = ADDRESS_BYTES + 1 + COMMAND_BYTES
            if COMMANDS.get(held[:COMMAND_BYTES]):
                if len(held) < head or len(held) < (end := head + held[head - 1] + 1):
                    break
                if held[end - 1 : end] == b"\n":
                    node = int.from_bytes(held[COMMAND_BYTES : head - 1], "big")
                    commands.append(Command(held[:COMMAND_BYTES], node, held[head : end - 1]))
                    held = held[end:]
                    continue
            line, newline, rest = held.partition(b"\n")
            if not newline:
                held = held[-MAX_FRAME:]
                break
            commands.append(Command(line))
            held = rest
        self._held = held
        return commands
