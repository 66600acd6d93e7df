"""The combinators' wire: a job goes there, an answer comes back, on one connection.

    server -> combinator    {"_id": "65a1...", "code": "696969"}
    combinator -> server    {"_id": "65a1...", "status": "done" | "error", "device": 1}

Source: the seed, "서버 → 색조합기 통신" and "색조합기 → 서버 통신". The seed's combinator takes
what one ``recv(1024)`` brings for one job: never send a second one before the first is answered. It
says ``"device": 1`` whichever it is: the connection decides who answers. The program of that
project's repository ``color_combinator`` reads ``recv(256)``, says ``"device": "1"``, as text, and
ends with an error at a ``code`` that is not in its table, and when the connection is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from patchbay_allocator.wire.json_objects import Splitter, parse, read_all

MAX_ID: Final = 64
"""Characters of an id in an answer. Ours have 24."""


MAX_DIGITS: Final = 5
"""Digits of the number of a combinator."""


@dataclass(frozen=True, slots=True)
class Mix:
    """A job for a combinator. ``id`` is the job's, 24 hexadecimal digits."""

    id: str
    code: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a combinator says of a job. ``device``: its number, as it believes; None: not said."""

    id: str
    status: Literal["done", "error"]
    device: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A sound object that is neither. The connection goes on with the next one."""

    reason: str
    original: bytes


Frame = TypeVar("Frame", Mix, Answer)


class _Decoder(Generic[Frame]):
    """Bytes in, frames out; any split of the bytes."""

    def __init__(self, read: Callable[[bytes], Frame | Refused]) -> None:
        self._splitter = Splitter()
        self._read: Callable[[bytes], Frame | Refused] = read

    def feed(self, data: bytes) -> list[Frame | Refused]:
        """What is complete with these bytes, in order.

        Raises `WireError` for what is no JSON object, with what came before it in ``before``;
        close the connection then.
        """
        return read_all(self._splitter, data, self._read)

    def finish(self) -> None:
        """The connection is at its end. Raises `WireError` if an object is unfinished."""
        self._splitter.finish()


class Decoder(_Decoder[Answer]):
    """The server's side: bytes from a combinator in, answers out."""

    def __init__(self) -> None:
        super().__init__(_answer)


class MixDecoder(_Decoder[Mix]):
    """The combinator's side: bytes from the server in, jobs out."""

    def __init__(self) -> None:
        super().__init__(_mix)


def encode(mix: Mix) -> bytes:
    """The bytes of a job, for one write."""
    return json.dumps({"_id": mix.id, "code": mix.code}).encode()


def encode_answer(answer: Answer) -> bytes:
    """The bytes of an answer, as the seed's combinator makes them."""
    fields: dict[str, Any] = {"_id": answer.id, "status": answer.status}
    if answer.device is not None:
        fields["device"] = answer.device
    return json.dumps(fields).encode()


def _answer(text: bytes) -> Answer | Refused:
    found = parse(text)
    job, status, device = found.get("_id"), found.get("status"), found.get("device")
    if not isinstance(job, str) or not 1 <= len(job) <= MAX_ID:
        return Refused(f"_id must be a text of 1 to {MAX_ID} characters", text)
    if status not in ("done", "error"):
        return Refused("status must be done or error", text)
    return Answer(job, status, _number(device))


def _number(device: Any) -> int | None:
    """The combinator of the seed's project says its number as text."""
    if isinstance(device, str) and device.isascii() and device.isdigit():
        device = int(device) if len(device) <= MAX_DIGITS else None
    if isinstance(device, bool) or not isinstance(device, int):
        return None
    return device if 0 <= device < 10**MAX_DIGITS else None


def _mix(text: bytes) -> Mix | Refused:
    found = parse(text)
    job, code = found.get("_id"), found.get("code")
    if not isinstance(job, str) or not 1 <= len(job) <= MAX_ID:
        return Refused(f"_id must be a text of 1 to {MAX_ID} characters", text)
    if not isinstance(code, str):
        return Refused("code must be a text", text)
    return Mix(job, code)
