"""The seed's own programs, written again from its description, against us.

The client connects, sends one object and closes at once. The test combinator reads once for each
job, parses what came as one object, takes its time, and says ``"device": 1`` whichever it is; what
it cannot parse ends its thread, and its connection stays open and silent for ever.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from patchbay.testing import until

if TYPE_CHECKING:
    from conftest import House

MIXING_S = 0.3
"""Five seconds in the original."""


class TestCombinator:
    """The seed's test program for one port; it keeps what it got for us to look at."""

    __test__ = False

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.silent = 0
        """Threads that have ended with their connection open."""
        self._kept: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("localhost", 0))
        self._listener.listen(1)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._kept.append(connection)
            threading.Thread(target=self._connect, args=(connection,), daemon=True).start()

    def _connect(self, soc: socket.socket) -> None:
        try:
            while True:
                data = json.loads(soc.recv(1024).decode())
                self.got.append(data)
                time.sleep(MIXING_S)
                answer = {"_id": data["_id"], "status": "done", "device": 1}
                soc.send(json.dumps(answer).encode())
        except Exception:  # as the original has it
            self.silent += 1

    def close(self) -> None:
        for one in (self._listener, *self._kept):
            one.close()


@pytest.fixture
def combinators() -> Iterator[list[TestCombinator]]:
    combinators = [TestCombinator(), TestCombinator()]
    yield combinators
    for one in combinators:
        one.close()


def send_as_the_seeds_client(port: int, customer: str, color: str) -> None:
    """Connect, one object, close at once."""
    soc = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    soc.connect(("127.0.0.1", port))
    data = {"CustomerName": customer, "ColorCode": color}
    soc.send(json.dumps({"ClientName": "CHROMEBOOK_04", "data": data}).encode())
    soc.close()


async def test_the_seeds_programs_work_unchanged(
    house: House, combinators: list[TestCombinator]
) -> None:
    await house.start(*(one.port for one in combinators))
    colors = [f"{number:06X}" for number in range(6)]
    for color in colors:
        send_as_the_seeds_client(house.port, "이름", color)
    await house.counted(done=6)
    documents = await house.documents()
    assert [one["data"] for one in documents] == [
        {"CustomerName": "이름", "ColorCode": color} for color in colors
    ]
    # Neither was sent two at once: it would be silent now, and its jobs not done.
    assert [one.silent for one in combinators] == [0, 0]
    assert [len(one.got) for one in combinators] == [3, 3]
    assert {key for one in combinators for got in one.got for key in got} == {"_id", "code"}
    for number, one in enumerate(combinators, start=1):
        by_us = {str(found["_id"]) for found in documents if found["assignedAt"] == number}
        assert {got["_id"] for got in one.got} == by_us
    assert house.edge.wrong_device == 3
    await until(lambda: house.state.get("done") == 6)
