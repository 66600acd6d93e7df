"""ACon_V1.0, the wire of the parcel-locker boards: bytes in, frames out; frames in, bytes out.

A board connects over TCP and sends requests; each gets one answer (source: the README of
tcp_async_server, "структура сообщения от устройства" and "структура сообщения от сервера"):

    request                          answer
    +-----------------------------+  +-------------------------+
    | ACon_V1.0                   |  | ACon_V1.0               |  the request's header
    | ID=1953                     |  | ID=1953                 |  the request's, byte for byte
    | SEND=141349                 |  | SEND=141349             |  the request's, byte for byte
    | CONNECTION=1                |  | RESET=0                 |  1: reboot
    | WIFI_STATE=0                |  | STATE=0                 |  3: block access
    | GSM_STATE=0                 |  | BOX_ENG=(2,1492,4800)   |  cell, code, minutes
    | RESET=1                     |  | BOX_ENG=(5,1492,4800)   |  one line a code
    | STATE=0                     |  | CLOSE                   |
    | COLS=8                      |  +-------------------------+
    | ROWS=8                      |
    | ACT_CON=01011011,11111111   |  one group of digits a row
    | BOX_ENG=2,5,8               |  cells; "0" or empty: none
    | BOX_TO=33,34                |
    | BOX_ACC=1,54,43             |
    | CLOSE                       |  no line end needed after it
    +-----------------------------+

UTF-8, lines ended by CR LF or LF. A message is complete at the bytes ``CLOSE`` at the start of a
line, whatever follows: what follows begins the next message (so ``CLOSED=1`` is CLOSE and then a
message that starts with ``D`` and is refused). Line ends and byte order marks between messages, and
empty lines within one, are skipped.

Where the source is silent: a key said twice counts as said last; a known key that is not said is
0, no or empty, only ID and SEND must be there; a list that is empty is no numbers; 0 among cells
is no cell, a cell listed twice counts once.

Firmware is sloppy, and a report that is refused leaves its board unanswered for ever. What can only
mean one thing is taken: an empty number is 0, a comma after the last cell does not count, and a
SEND from -2^31 to -1 is a counter of 32 bits that was printed as signed: 2^32 more.

An ACT_CON that does not match COLS and ROWS is a message like any other: what to make of it is not
the wire's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Generic, TypeVar

from patchbay_locker import wire_values as values
from patchbay_locker.wire_values import MAX_CELL as MAX_CELL
from patchbay_locker.wire_values import SEND_WRAP
from patchbay_locker.wire_values import LockerError as LockerError
from patchbay_locker.wire_values import WireError as WireError

HEADER: Final = "ACon_V1.0"

MAX_MESSAGE: Final = 65_536
"""Bytes from header to CLOSE. A full report of 64 cells has some 700. One connection can make us
hold this much: 640 MB at the very worst for 10,000 of them."""

MAX_LINE: Final = 4_096
"""Bytes of a line without its line end. The longest list of cells that makes sense has 200."""

MAX_ORIGINAL: Final = 1_024
"""Bytes of a refused message that `WireError.original` keeps: enough to see what it was."""

MAX_ID: Final = 128
"""Characters of an ID: it becomes part of topics and of database keys."""

MAX_SEND_DIGITS: Final = 18
"""Digits of SEND: any such number fits the 64 bits of SQLite and MongoDB."""

RESERVED_IDS: Final = frozenset({"all"})
"""In topics, in lower case, these stand for something else than a board."""

_CLOSE = b"\nCLOSE"
_MAGIC = b"ACon_V"
_NO_HEADER = "the header is not ACon_V<major>.<minor>"
_HEADER = re.compile(r"ACon_V[0-9]{1,4}\.[0-9]{1,4}")
_BOM = b"\xef\xbb\xbf"
_BETWEEN = re.compile(rb"(?:[\r\n]|\xef\xbb\xbf)*")
_CODE = re.compile(r"\(([0-9]{1,9}),([0-9]{1,32}),([0-9]{1,9})\)")


@dataclass(frozen=True, slots=True)
class Request:
    """One report of a board, as it said it.

    ``send_text`` is SEND byte for byte, for the answer. ``digest`` tells two messages of one SEND
    apart: 8 bytes over all bytes from header to CLOSE, the same in every process. It does not
    count in comparisons.
    """

    header: str
    id: str
    send: int
    send_text: str
    connection: int = 0
    """1 Wi-Fi, 2 GSM, 0 not said."""
    wifi_state: int = 0
    gsm_state: int = 0
    """0 fine, 1 hardware fault, 2 no access point (Wi-Fi), 3 no internet."""
    reset: bool = False
    """RESET is 1: the board has rebooted."""
    state: tuple[int, ...] = ()
    """0 normal, 1 short circuit, 2 wrong code three times, 3 blocked; there may be others."""
    cols: int = 0
    rows: int = 0
    """1 to 8; 0 not said."""
    act_con: tuple[str, ...] = ()
    """Groups of the digits 0 and 1, as sent."""
    box_eng: tuple[int, ...] = ()
    box_to: tuple[int, ...] = ()
    box_acc: tuple[int, ...] = ()
    """Cells in the order sent, each once."""
    extra: dict[str, str] = field(default_factory=dict)
    """Keys that ACon_V1.0 does not name, as sent."""
    digest: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Code:
    """A code that a cell opens with, for so many minutes more. ``code`` is digits."""

    cell: int
    code: str
    minutes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says to one request. ``codes`` is complete: the board forgets all others."""

    header: str
    id: str
    send_text: str
    reset: bool = False
    blocked: bool = False
    codes: tuple[Code, ...] = ()


def encode(answer: Answer) -> bytes:
    """The bytes of an answer, for one write. LF line ends, as the seed's own server sends."""
    codes = "".join([f"BOX_ENG=({c.cell},{c.code},{c.minutes})\n" for c in answer.codes])
    return (
        f"{answer.header}\nID={answer.id}\nSEND={answer.send_text}\n"
        f"RESET={'1' if answer.reset else '0'}\nSTATE={'3' if answer.blocked else '0'}\n"
        f"{codes}CLOSE\n"
    ).encode()


def encode_request(request: Request, *, line_end: bytes = b"\r\n", end: bytes = b"") -> bytes:
    """The bytes of a request; ``end`` follows CLOSE (nothing, as boards do, or a line end)."""
    lines = [
        request.header,
        f"ID={request.id}",
        f"SEND={request.send_text}",
        f"CONNECTION={request.connection}",
        f"WIFI_STATE={request.wifi_state}",
        f"GSM_STATE={request.gsm_state}",
        f"RESET={1 if request.reset else 0}",
        f"STATE={','.join(map(str, request.state))}",
    ]
    if request.cols:
        lines.append(f"COLS={request.cols}")
    if request.rows:
        lines.append(f"ROWS={request.rows}")
    lines.append(f"ACT_CON={','.join(request.act_con)}")
    for key, cells in (
        ("BOX_ENG", request.box_eng),
        ("BOX_TO", request.box_to),
        ("BOX_ACC", request.box_acc),
    ):
        lines.append(f"{key}={','.join(map(str, cells)) or '0'}")
    lines.extend(f"{key}={value}" for key, value in request.extra.items())
    lines.append("CLOSE")
    return line_end.join([line.encode() for line in lines]) + end


Message = TypeVar("Message")


class _Stream(Generic[Message]):
    """Cuts a stream of bytes into messages. Holds at most MAX_MESSAGE bytes between two calls."""

    def __init__(self, parse: Callable[[bytes], Message]) -> None:
        self._parse = parse
        self._held = bytearray()
        self._searched = 0
        self._broken: WireError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with these bytes, in order; often none.

        Raises `WireError` at the first bad message, with the good ones before it in ``before``;
        from then on every call raises.
        """
        if self._broken is not None:
            raise WireError(self._broken.reason, self._broken.original)
        held = self._held
        searched = self._searched
        buffer: bytes | bytearray = data
        if held:
            held += data
            buffer = held
        messages: list[Message] = []
        start, size = 0, len(buffer)
        try:
            while start < size:
                if buffer[start] in b"\r\n\xef":
                    match = _BETWEEN.match(buffer, start)
                    start = match.end() if match else start
                end = buffer.find(_CLOSE, searched or start, start + MAX_MESSAGE)
                if end < 0:
                    break
                end += len(_CLOSE)
                messages.append(self._parse(bytes(buffer[start:end])))
                start, searched = end, 0
            if start < size:
                _check_unfinished(buffer, start)
        except WireError as error:
            error.original = bytes(buffer[start : start + MAX_ORIGINAL])
            error.before = messages
            self._broken = error
            self._held = bytearray()
            raise
        if buffer is held:
            del held[:start]
        else:
            held += buffer[start:]
        # The last bytes may be the start of the closing line.
        self._searched = max(0, len(held) - len(_CLOSE) + 1)
        return messages


class Decoder(_Stream[Request]):
    """The server's side: bytes from a board in, `Request` frames out. Any split of the bytes."""

    def __init__(self) -> None:
        super().__init__(_request)


class AnswerDecoder(_Stream[Answer]):
    """The board's side: bytes from the server in, `Answer` frames out. Any split of the bytes."""

    def __init__(self) -> None:
        super().__init__(_answer)


def _check_unfinished(buffer: bytes | bytearray, start: int) -> None:
    """Refuse at once what can no longer become a message, so that nothing grows without end."""
    size = len(buffer) - start
    begins = _BOM if buffer[start] == _BOM[0] else _MAGIC
    if not buffer.startswith(begins[:size], start):
        raise WireError(_NO_HEADER)
    if size >= MAX_MESSAGE:
        raise WireError("a message over 64 KiB")
    line = len(buffer) - max(start, buffer.rfind(b"\n", start) + 1)
    if line - buffer.endswith(b"\r") > MAX_LINE:
        raise WireError("a line over 4 KiB")


def _lines(message: bytes) -> list[str]:
    """The lines of a message, the header first and CLOSE last."""
    if not message.startswith(_MAGIC):
        raise WireError(_NO_HEADER)
    if len(message) > MAX_LINE:
        longest = max(map(len, message.replace(b"\r\n", b"\n").split(b"\n")))
        if longest > MAX_LINE:
            raise WireError("a line over 4 KiB")
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise WireError("bytes that are not UTF-8") from None
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[0] != HEADER and not _HEADER.fullmatch(lines[0]):
        raise WireError(_NO_HEADER)
    return list(filter(None, lines))


def _request(message: bytes) -> Request:
    header, *lines, _close = _lines(message)
    try:
        fields: dict[str, str] = dict([line.split("=", 1) for line in lines])
    except ValueError:
        raise WireError("a line without =") from None
    take = fields.pop
    board, send = _identity(take("ID", ""), take("SEND", ""))
    return Request(
        header,
        board,
        values.send(send),
        send,
        values.number(take("CONNECTION", "") or "0"),
        values.number(take("WIFI_STATE", "") or "0"),
        values.number(take("GSM_STATE", "") or "0"),
        values.number(take("RESET", "") or "0") == 1,
        values.numbers(take("STATE", "")),
        values.side(take("COLS", None)),
        values.side(take("ROWS", None)),
        values.groups(take("ACT_CON", "")),
        values.cells(take("BOX_ENG", "")),
        values.cells(take("BOX_TO", "")),
        values.cells(take("BOX_ACC", "")),
        _extra(fields) if fields else fields,
        blake2b(message, digest_size=8).digest(),
    )


def _answer(message: bytes) -> Answer:
    header, *lines, _close = _lines(message)
    fields: dict[str, str] = {}
    codes: list[Code] = []
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals:
            raise WireError("a line without =")
        if key != "BOX_ENG":
            fields[key] = value
        elif match := _CODE.fullmatch(value):
            codes.append(Code(int(match[1]), match[2], int(match[3])))
        else:
            raise WireError("a code that is not (cell,code,minutes)")
    board, send = _identity(fields.get("ID", ""), fields.get("SEND", ""))
    reset = values.number(fields.get("RESET", "0")) == 1
    return Answer(
        header, board, send, reset, 3 in values.numbers(fields.get("STATE", "")), tuple(codes)
    )


def _identity(board: str, send: str) -> tuple[str, str]:
    if not board:
        raise WireError("no ID")
    if len(board) > MAX_ID or not board.isprintable():
        raise WireError("an ID that is too long or not printable")
    if board.lower() in RESERVED_IDS:
        raise WireError("an ID that stands for something else")
    if not send:
        raise WireError("no SEND")
    # isdecimal alone takes the digits of every script; the boards count in ASCII.
    if not (send.isascii() and send.removeprefix("-").isdecimal()):
        raise WireError("a number that does not parse")
    if send[0] == "-" and not -(SEND_WRAP // 2) <= int(send[:MAX_SEND_DIGITS]) < 0:
        raise WireError("a number that does not parse")
    if len(send) > MAX_SEND_DIGITS:
        raise WireError("a SEND of more than 18 digits")
    return board, send


def _extra(fields: dict[str, str]) -> dict[str, str]:
    if not all(key and key.isprintable() for key in fields):
        raise WireError("a key that is empty or not printable")
    return fields
