"""One full disk under the whole of `up`: nothing accepted is lost, and all heals by itself."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest

from patchbay.testing import PATIENCE_S
from tests.running import System, wait_for

DISK = "96m"
QUICK = {
    "PATCHBAY_RUNTIME__RESTART_AFTER_S": "5",
    "PATCHBAY_STORE__TIMEOUT_S": "3",
    "PATCHBAY_ALLOCATOR__DEMO_INTERVAL_S": "600",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of that size."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is made by mount, which only root may do, and not everywhere")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


class Load:
    """Devices that go on whatever happens, and what they were told."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.jobs = 0
        self.reports: set[int] = set()
        self.color = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            with contextlib.suppress(OSError):
                self._job(number)
            with contextlib.suppress(OSError):
                self._report(number)
            with contextlib.suppress(OSError):
                self._light(f"{number:06x}")
            self._stop.wait(0.2)

    def _connect(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port + self.system.offset), timeout=2)

    def _job(self, number: int) -> None:
        job = {"ClientName": "disk", "data": {"CustomerName": f"n{number}", "ColorCode": "00ff00"}}
        with self._connect(8372) as chromebook:
            chromebook.sendall(json.dumps(job).encode())
        self.jobs = number

    def _report(self, number: int) -> None:
        report = f"ACon_V1.0\nID=disk\nSEND={number}\nBOX_ACC={number % 60 + 1}\nCLOSE"
        with self._connect(5000) as board:
            board.sendall(report.encode())
            if board.recv(200):
                self.reports.add(number)

    def _light(self, color: str) -> None:
        command = {"method": "message", "params": {"command": "COLOR", "value": color}}
        url = f"http://127.0.0.1:{9000 + self.system.offset}/"
        request = urllib.request.Request(url, data=json.dumps(command).encode())
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310
            self.color = color


def fill(disk: Path) -> list[Path]:
    """Files that leave not a byte."""
    files = []
    for name, size in (("large", 65_536), ("small", 512), ("tiny", 1)):
        path = disk / name
        files.append(path)
        with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
            while file.write(bytes(size)):
                pass
    return files


@pytest.mark.parametrize(
    ("full_s", "services"),
    [
        (10, "allocator,lantern,locker"),
        pytest.param(120, "allocator,bartender,lantern,locker,mesh", marks=pytest.mark.long),
    ],
)
def test_all_works_again_when_a_full_disk_has_room_and_nothing_accepted_is_lost(
    disk: Path, tmp_path: Path, full_s: int, services: str
) -> None:
    system = System(tmp_path, "--demo", "--only", services)
    system.state = disk / "state"
    try:
        system.start(QUICK)
        load = Load(system)
        load.start()
        wait_for(lambda: len(load.reports) > 10 and load.color, "load")
        end = time.monotonic() + full_s
        while time.monotonic() < end:  # what is freed meanwhile is filled, too
            files = fill(disk)
            time.sleep(0.5)
        for path in files:
            path.unlink()
        freed_at = time.monotonic()
        wait_for(lambda: system.status()["ready"], "everything works again")
        print(f"ready {time.monotonic() - freed_at:.1f} s after there was room")
        answered = len(load.reports)
        wait_for(lambda: len(load.reports) > answered + 10, "boards are answered again")
        load.stop()
        check_nothing_is_lost(system, load)
        logs = sum(file.stat().st_size for file in (system.state / "log").iterdir())
        assert logs < 2_000_000, "the logs do not fill the disk again"
    finally:
        system.clean_up()


def check_nothing_is_lost(system: System, load: Load) -> None:
    """All that a device was told is in the store, once."""
    with pymongo.MongoClient("127.0.0.1", 27_017 + system.offset) as client:
        store = client["patchbay"]

        def jobs() -> list[str]:
            found = store["jobs"].find({"ClientName": "disk"})
            return [one["data"]["CustomerName"] for one in found]

        def accesses() -> list[int]:
            return [one["send"] for one in store["accesses"].find({"board": "disk"})]

        wait_for(lambda: len(set(jobs())) >= load.jobs, f"{load.jobs} jobs")
        wait_for(lambda: load.reports <= set(accesses()), f"{len(load.reports)} reports")
        assert len(jobs()) == len(set(jobs()))
        assert len(accesses()) == len(set(accesses()))
