"""The Chromebooks' wire: they connect, say a job, and close. There is no answer.

    {"ClientName": "CHROMEBOOK_04",                      the Chromebook's id
     "data": {"CustomerName": "이름",                      whose colour it is
              "ColorCode": "696969"}}                    RRGGBB, hexadecimal

Source: the seed, "크롬북 → 서버 통신". Extra keys are ignored. Which names and colours are good is
not the wire's to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from patchbay_allocator.wire.json_objects import Splitter, parse, read_all


@dataclass(frozen=True, slots=True)
class Job:
    """A job as a Chromebook says it. ``original``: the bytes that it was read from."""

    client: str
    customer: str
    color: str
    original: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A sound object that is no job. The connection goes on with the next one."""

    reason: str
    original: bytes


class Decoder:
    """The server's side: bytes in, jobs and refused objects out. Any split of the bytes."""

    def __init__(self) -> None:
        self._splitter = Splitter()

    def feed(self, data: bytes) -> list[Job | Refused]:
        """What is complete with these bytes, in order.

        Raises `WireError` for what is no JSON object, with what came before it in ``before``;
        close the connection then.
        """
        return read_all(self._splitter, data, _job)

    def finish(self) -> None:
        """The connection is at its end. Raises `WireError` if an object is unfinished."""
        self._splitter.finish()


def encode(job: Job) -> bytes:
    """The bytes of a job, for one write: as the seed's client makes them."""
    data = {"CustomerName": job.customer, "ColorCode": job.color}
    return json.dumps({"ClientName": job.client, "data": data}).encode()


def _job(text: bytes) -> Job | Refused:
    found = parse(text)
    data: Any = found.get("data")
    if not isinstance(data, dict):
        return Refused("data must be an object", text)
    texts: list[str] = []
    for where, key in ((found, "ClientName"), (data, "CustomerName"), (data, "ColorCode")):
        value = where.get(key)
        if not isinstance(value, str):
            return Refused(f"{key} must be a text", text)
        texts.append(value)
    client, customer, color = texts
    return Job(client, customer, color, text)
