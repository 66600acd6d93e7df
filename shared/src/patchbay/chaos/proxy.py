"""``python -m patchbay.chaos.proxy --listen PORT HOST:PORT [--store]``: a link as a process.

A line of JSON on standard input does one thing and is answered with a line, ``ok`` or the error:

    {"do": "stall", "way": "up"}     {"do": "delay", "seconds": 0.2}
    {"do": "cut"}     {"do": "refuse"}     {"do": "resume"}
    {"do": "refuse_writes", "code": 14031, "how": "documents", "collections": ["jobs"],
     "containing": "marker"}

The first line that it writes is the port. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from patchbay.chaos.link import Link
from patchbay.chaos.store_link import Refusal, StoreLink, containing


def obey(link: Link, order: dict[str, Any]) -> None:
    """Do what one line orders. Raises ValueError, TypeError or KeyError for an invalid one."""
    arguments = {key: value for key, value in order.items() if key != "do"}
    match order["do"]:
        case "stall" | "delay" | "cut" | "refuse" | "resume" as name:
            getattr(link, name)(**arguments)
        case "refuse_writes" if isinstance(link, StoreLink):
            if "containing" in arguments:
                arguments["only"] = containing(arguments.pop("containing"))
            for name in ("collections", "commands"):
                if name in arguments:
                    arguments[name] = frozenset(arguments[name])
            link.refuse_writes(Refusal(**arguments))
        case unknown:
            raise ValueError(f"unknown order {unknown!r}")


async def run(link: Link) -> None:
    """Serve until standard input ends."""
    async with link:
        print(link.port, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                obey(link, json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                print(f"{type(error).__name__}: {error}", flush=True)
            else:
                print("ok", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m patchbay.chaos.proxy")
    parser.add_argument("target", metavar="HOST:PORT", help="where the server is")
    parser.add_argument("--listen", type=int, default=0, help="port; 0 is any free one")
    parser.add_argument("--store", action="store_true", help="the server is a MongoDB")
    given = parser.parse_args()
    host, _, port = given.target.rpartition(":")
    kind = StoreLink if given.store else Link
    asyncio.run(run(kind(host, int(port), port=given.listen)))


if __name__ == "__main__":
    main()
