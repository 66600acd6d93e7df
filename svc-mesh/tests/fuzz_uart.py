"""A program for atheris: any bytes in any pieces, and what must hold of them. See test_fuzz.py.

python fuzz_uart.py -runs=100000 -seed=1
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from patchbay_mesh.wire import socket_api
    from patchbay_mesh.wire.content import parse
    from patchbay_mesh.wire.uart import MAX_FRAME, CommandDecoder, Decoder, WireError


def one(data: bytes) -> None:
    """One input: its first byte says how the rest is cut."""
    size = (data[0] % 32 + 1) if data else 1
    chunks = [data[at : at + size] for at in range(1, len(data), size)]
    whole, split = Decoder(), Decoder()
    frames = whole.feed(data[1:])
    assert [frame for chunk in chunks for frame in split.feed(chunk)] == frames
    assert (split.skipped, split.dropped) == (whole.skipped, whole.dropped)
    assert len(split._held or b"") <= 2 * MAX_FRAME
    for frame in frames:
        try:
            parse(frame)
        except WireError:
            continue
    commands, requests = CommandDecoder(), socket_api.Decoder()
    for chunk in chunks:
        commands.feed(chunk)
        requests.feed(chunk)
    requests.finish()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
