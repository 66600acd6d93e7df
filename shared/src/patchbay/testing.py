"""Real parts for tests: a Mosquitto and a store, each a process of its own.

A pytest plugin, loaded by the root ``conftest.py``. Every part listens on loopback on a free port,
keeps its files in the test's directory and is ended by its process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol, Self

import pytest

from patchbay import broker, embedded
from patchbay.bus import Bus, Message
from patchbay.chaos.store_link import StoreLink
from patchbay.settings import BrokerSettings, StoreSettings
from patchbay.store import Store
from patchbay.topics import Topics

PATIENCE_S = 120.0
"""How long a test waits for what must come. Long, since no test may depend on how fast a machine
is: only one that would fail waits to the end."""

SUSPECT_S = 0.3
"""After so long a `linked_store` gives a document up that alone is refused."""

TEST_PORTS = (10_000, 30_000)

TCP_REPAIR = 19
"""Linux, ``<linux/tcp.h>``: a socket in repair mode is closed without a segment."""


def free_port() -> int:
    """A TCP port that nobody listens on now, below those that the kernel gives to clients.

    One of those would go to a client, perhaps the very one that tries to reach it, while a test has
    killed the part that listens there; that part could not start again.
    """
    chance = random.SystemRandom()  # one that tests do not seed: two runs would want the same ports
    while True:
        port = chance.randint(*TEST_PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port


def vanish(connection: socket.socket) -> None:
    """Close a connection so that its peer learns nothing of it: neither FIN nor reset is sent, as
    when a machine loses its power. Skips the test where the kernel does not let us (it takes
    CAP_NET_ADMIN)."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except PermissionError:
        pytest.skip("no CAP_NET_ADMIN: a connection cannot vanish")
    connection.close()


async def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait until ``condition`` holds. Raises TimeoutError; the condition's name is in it."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"after {timeout_s} s: {getattr(condition, '__name__', condition)}")
        await asyncio.sleep(0.01)


async def eventually(
    condition: Callable[[], Awaitable[object]], timeout_s: float = PATIENCE_S
) -> None:
    """Wait until an awaited ``condition`` holds. Raises TimeoutError."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"after {timeout_s} s: {getattr(condition, '__name__', condition)}")
        await asyncio.sleep(0.02)


class Lateness:
    """How late a plain sleep of 10 ms wakes at worst while this lasts: ``with`` it.

    On a busy machine no timer does better. A test that holds a real timer to a tenth of a second
    allows it so much more, and is as sharp as ever on a quiet one.
    """

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._due = math.inf
        self._closing = False
        self._thread = threading.Thread(target=self._sleep_for_ever, name="lateness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing = True
        self._thread.join()

    @property
    def worst_s(self) -> float:
        """Seconds, of all sleeps until now and of the one that is overdue."""
        return max(self._worst_s, time.monotonic() - self._due)

    def _sleep_for_ever(self) -> None:
        while not self._closing:
            self._due = time.monotonic() + 0.01
            time.sleep(0.01)
            self._worst_s = max(self._worst_s, time.monotonic() - self._due)


@pytest.fixture
def lateness() -> Iterator[Lateness]:
    """How late timers are on this machine while the test runs."""
    with Lateness() as lateness:
        yield lateness


def start_s(*modules: str, nice: int = 0) -> float:
    """Seconds that a Python which imports these modules and does nothing takes, start to end, now:
    no unit of theirs begins its work more quickly."""
    began = time.monotonic()
    command = ["nice", "-n", str(nice), sys.executable, "-c", f"import {', '.join(modules)}"]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    return time.monotonic() - began


async def reaches(measure: Callable[[], Awaitable[int]], enough: int) -> None:
    """Wait until ``measure`` is at least ``enough``, however long that takes while it rises.

    Raises TimeoutError when it has stayed the same for `PATIENCE_S`.
    """
    before = -1
    while (now := await measure()) < enough:
        if now != before:
            before, deadline = now, asyncio.get_running_loop().time() + PATIENCE_S
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"{now} of {enough} for {PATIENCE_S} s")
        await asyncio.sleep(0.05)


class Seen(list[Message]):
    """Messages in the order in which they came."""

    async def take(self, message: Message) -> None:
        self.append(message)

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self]


def pub(mosquitto: Part, topic: str, payload: str, *options: str) -> None:
    """Publish with the C client, as a person does."""
    subprocess.run(
        ["mosquitto_pub", "-p", str(mosquitto.port), "-t", topic, "-m", payload, *options],
        check=True,
        timeout=PATIENCE_S,
    )


class Part:
    """A process that a test starts, kills and starts again on the same files and port."""

    def __init__(
        self, name: str, directory: Path, command: Callable[[], list[str]], port: int
    ) -> None:
        self.name = name
        self.host = "127.0.0.1"
        self.port = port
        self.log = directory / f"{name}.log"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"  # noqa: S101
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start without waiting."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.spawn()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return
            except OSError as error:
                if not self.running or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"{self.name} does not start: {self.log.read_text()[-2000:]}"
                    ) from error
                time.sleep(0.01)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait; SIGKILL if that takes more than ten seconds."""
        self._end(signal.SIGTERM)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped in its tracks (SIGSTOP) for as long as the context lasts: it hangs."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def mosquitto_part(directory: Path, port: int | None = None) -> Part:
    """A Mosquitto with the project's own configuration; not started."""
    port = port or free_port()
    return Part("mosquitto", directory, lambda: broker.prepare(directory, port), port)


def store_part(directory: Path, port: int | None = None, *, auth: bool = False) -> Part:
    """The embedded store, which asks for a password if ``auth``; not started."""
    port = port or free_port()
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data"
    return Part("store", directory, lambda: embedded.command(data, port, auth=auth), port)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Part]:
    """A Mosquitto of the test's own."""
    part = mosquitto_part(tmp_path / "broker")
    part.start()
    yield part
    part.stop()


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Part]:
    """One store for all tests; each uses a database of its own."""
    part = store_part(tmp_path_factory.mktemp("store"))
    part.start()
    yield part
    part.stop()


_databases = itertools.count(1)


@pytest.fixture
async def store(store_server: Part) -> AsyncIterator[Store]:
    """A `Store` with an empty database of the test's own."""
    settings = StoreSettings(database=f"test_{os.getpid()}_{next(_databases)}")
    async with Store(settings, f"mongodb://127.0.0.1:{store_server.port}") as store:
        yield store


@pytest.fixture
async def store_link(store_server: Part) -> AsyncIterator[StoreLink]:
    """A link to the store that refuses writes when it is told to."""
    async with StoreLink("127.0.0.1", store_server.port) as link:
        yield link


@pytest.fixture
async def linked_store(store: Store, store_link: StoreLink) -> AsyncIterator[Store]:
    """The same database as ``store``, over ``store_link``; soon impatient."""
    database = store.collection("x").database.name
    settings = StoreSettings(
        database=database, timeout_s=2.0, suspect_failures=3, suspect_s=SUSPECT_S
    )
    async with Store(settings, store_link.uri) as linked:
        yield linked


class MakeBus(Protocol):
    """Makes a bus client of this test's Mosquitto that connects quickly again."""

    def __call__(self, client_id: str, *, durable: bool = ..., announce: bool = ...) -> Bus: ...


@pytest.fixture
async def make_bus(mosquitto: Part) -> AsyncIterator[MakeBus]:
    """Make bus clients; they are stopped after the test."""
    made: list[Bus] = []

    def make(client_id: str, *, durable: bool = False, announce: bool = False) -> Bus:
        bus = Bus(
            broker_settings(mosquitto.port),
            client_id=client_id,
            topics=Topics(),
            durable=durable,
            announce=announce,
        )
        made.append(bus)
        return bus

    yield make
    for bus in made:
        await bus.stop()


def broker_settings(port: int) -> BrokerSettings:
    """Settings for a broker on loopback that is killed and started again within milliseconds."""
    return BrokerSettings(port=port, backoff_initial_s=0.05, backoff_max_s=0.5)
