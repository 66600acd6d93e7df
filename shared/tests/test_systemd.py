"""What systemd is told, on a real socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.health import PERIOD_S
from patchbay.systemd import READY, WATCHDOG, Notifier
from patchbay.testing import free_port


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


def heard(listener: socket.socket) -> str:
    return listener.recv(4096).decode()


def test_each_word_is_a_datagram_of_lines(listener: socket.socket) -> None:
    notifier = Notifier.of({"NOTIFY_SOCKET": listener.getsockname()})
    notifier.tell(READY, "STATUS=online")
    notifier.tell(WATCHDOG)
    assert heard(listener) == "READY=1\nSTATUS=online"
    assert heard(listener) == "WATCHDOG=1"
    notifier.close()


def test_an_abstract_socket_is_understood() -> None:
    name = f"patchbay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(30)
        notifier = Notifier(f"@{name}")
        notifier.tell(READY)
        assert heard(listener) == READY
        notifier.close()


def test_without_systemd_nothing_is_told() -> None:
    notifier = Notifier.of({})
    notifier.tell(READY)
    notifier.close()


def test_a_socket_that_is_gone_or_full_stops_nobody(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "nothing")).tell(READY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "full"))
        notifier = Notifier(str(tmp_path / "full"))
        for _ in range(10_000):
            notifier.tell(WATCHDOG)
    notifier.tell(WATCHDOG)
    notifier.close()


@pytest.fixture
def unit(listener: socket.socket, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A locker edge as systemd starts it, without a broker."""
    clean = {key: text for key, text in os.environ.items() if not key.startswith("PATCHBAY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "patchbay.runtime", "locker.edge", "--instance", "x"],
        env={
            **clean,
            "NOTIFY_SOCKET": listener.getsockname(),
            "PATCHBAY_BROKER__PORT": "1",
            "PATCHBAY_RUNTIME__STATE_DIR": str(tmp_path / "state"),
            "PATCHBAY_LOCKER__PORT": str(free_port()),
        },
        cwd=tmp_path,
        stderr=(tmp_path / "log").open("wb"),
    )
    yield process
    process.kill()
    process.wait()


def test_a_unit_is_ready_when_devices_are_served_and_says_that_it_lives_until_it_stops(
    unit: subprocess.Popen[bytes], listener: socket.socket
) -> None:
    words = [heard(listener)]
    while words[-1] != READY:
        words.append(heard(listener))
    while words.count(WATCHDOG) < 2:
        words.append(heard(listener))
    unit.send_signal(signal.SIGTERM)
    while words[-1] != "STOPPING=1":
        words.append(heard(listener))
    assert set(words) == {READY, WATCHDOG, "STOPPING=1"}
    assert words.count(READY) == 1
    assert unit.wait(30) == 0


def test_a_unit_that_hangs_says_nothing_more(
    unit: subprocess.Popen[bytes], listener: socket.socket
) -> None:
    while heard(listener) != READY:
        pass
    os.kill(unit.pid, signal.SIGSTOP)
    os.waitpid(unit.pid, os.WUNTRACED)
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):  # what it said before
        while heard(listener):
            pass
    listener.settimeout(3 * PERIOD_S)
    with pytest.raises(TimeoutError):
        heard(listener)
