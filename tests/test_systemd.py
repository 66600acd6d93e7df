"""The systemd service under a real systemd: started, stopped, killed, and hanging."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.services import discover
from patchbay.testing import PATIENCE_S, Part, free_port
from tests.machine import PYTHON, SETTINGS, STATE, Machine, sources, why_not
from tests.running import wait_for

UNIT = "locker.edge"
SERVICE = f"patchbay@{UNIT}.service"
ALL_UNITS = [
    f"{name}.{role}" for name, service in sorted(discover().items()) for role in service.roles
]
LOGS = "/var/log/patchbay-%i.log"


@pytest.fixture
def port() -> int:
    """What boards connect to."""
    return free_port()


@pytest.fixture
def machine(tmp_path: Path, port: int, mosquitto: Part) -> Iterator[Machine]:
    """One on which Patchbay is installed as the page says, with a broker that it can reach."""
    if (reason := why_not()) is not None:
        pytest.skip(f"no machine with systemd here: {reason}")
    machine = Machine(tmp_path)
    try:
        machine.start()
        install(machine, port, mosquitto.port)
        yield machine
    finally:
        machine.stop()


def install(machine: Machine, port: int, broker: int) -> None:
    user = ["--system", "--home-dir", STATE, "--shell", "/usr/sbin/nologin", "patchbay"]
    machine.run("useradd", *user)
    machine.run("install", "-d", "-m", "0750", "-g", "patchbay", SETTINGS)
    for parent in Path(sys.executable).resolve().parents:  # it may be in a home that is closed
        machine.run("chmod", "o+x", str(parent))
    machine.write(f"{SETTINGS}/environment", f"PYTHONPATH={sources()}\n")
    ports = {
        name: free_port()
        for service in discover().values()
        for name in (f"{service.name}__{key}" for key in service.ports.values())
    }
    ports["locker__port"] = port
    machine.write(
        f"{SETTINGS}/{UNIT}.environment",
        "".join(f"PATCHBAY_{name.upper()}={number}\n" for name, number in ports.items()),
    )
    machine.write(f"{SETTINGS}/patchbay.toml", f"[broker]\nport = {broker}\n")
    machine.run(PYTHON, "-m", "patchbay.cli", "install-service", UNIT)
    drop_in = "/etc/systemd/system/patchbay@.service.d"
    machine.run("mkdir", drop_in)  # there is no journal
    machine.write(f"{drop_in}/log.conf", f"[Service]\nStandardOutput=append:{LOGS}\n")
    machine.run("systemctl", "daemon-reload")


def refuses_nonsense(port: int) -> bool:
    """A device that is none is disconnected: somebody serves the port."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as device:
        device.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return device.recv(1) == b""


def test_it_is_started_when_devices_are_served_and_stops_cleanly(
    machine: Machine, port: int
) -> None:
    machine.run("systemctl", "start", SERVICE)  # returns after READY=1
    assert refuses_nonsense(port)
    process = machine.main_process(SERVICE)
    words = [PYTHON, "-m", "patchbay.cli", "health", UNIT, "--state", STATE]
    wait_for(lambda: "online" in machine.run(*words, check=False), "online", PATIENCE_S)
    machine.run("systemctl", "stop", SERVICE)
    assert machine.show(SERVICE, "Result") == "success"
    assert machine.show(SERVICE, "ExecMainStatus") == "0"
    assert not process.is_running()


def test_it_may_write_its_state_and_nothing_else(machine: Machine) -> None:
    machine.run("systemctl", "start", SERVICE)
    process = machine.main_process(SERVICE)
    assert process.username() != "root"
    status = Path(f"/proc/{process.pid}/status").read_text()
    said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert said["NoNewPrivs"] == "1"
    assert said["Seccomp"] == "2"
    assert {int(said[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}

    def writes(path: str) -> bool:
        """Could root, who has seen what the process sees, write there?"""
        inside = ["nsenter", "--mount", "--root", "--wd", "--target", str(process.pid)]
        done = subprocess.run(
            [*inside, "/bin/sh", "-c", ': > "$1"', "write", path],
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
        return done.returncode == 0

    assert writes(f"{STATE}/test")
    assert writes(f"{tempfile.gettempdir()}/test")  # its own
    for place in ("/etc", SETTINGS, "/opt/patchbay", "/usr", "/var", "/var/log", "/root", "/home"):
        assert not writes(f"{place}/test"), place
    machine.run("test", "!", "-e", f"{tempfile.gettempdir()}/test")


def test_what_is_killed_is_started_again(machine: Machine, port: int) -> None:
    machine.run("systemctl", "start", SERVICE)
    killed = machine.main_process(SERVICE)
    killed.kill()
    wait_for(lambda: machine.show(SERVICE, "NRestarts") == "1", "a restart", PATIENCE_S)
    wait_for(lambda: machine.active(SERVICE), SERVICE, PATIENCE_S)
    assert machine.main_process(SERVICE) != killed
    assert refuses_nonsense(port)


def test_what_hangs_is_killed_by_the_watchdog_and_started_again(
    machine: Machine, port: int
) -> None:
    machine.run("systemctl", "start", SERVICE)
    hanging = machine.main_process(SERVICE)
    hanging.send_signal(signal.SIGSTOP)
    wait_for(lambda: machine.show(SERVICE, "NRestarts") == "1", "the watchdog", PATIENCE_S)
    assert not hanging.is_running()  # nobody else ends what is stopped
    wait_for(lambda: machine.active(SERVICE), SERVICE, PATIENCE_S)
    assert refuses_nonsense(port)


def test_every_unit_lives_with_so_few_rights(machine: Machine) -> None:
    services = [f"patchbay@{unit}.service" for unit in ALL_UNITS]
    machine.run("cp", f"{SETTINGS}/{UNIT}.environment", f"{SETTINGS}/more")
    for unit in ALL_UNITS:
        if unit != UNIT:
            machine.run("cp", f"{SETTINGS}/more", f"{SETTINGS}/{unit}.environment")
    machine.run("systemctl", "start", *services)
    words = [PYTHON, "-m", "patchbay.cli", "health", *ALL_UNITS, "--state", STATE]

    def waiting() -> list[str]:
        lines = machine.run(*words, check=False).splitlines()
        return [line for line in lines if "online" not in line]

    wait_for(lambda: not waiting(), "all units online", PATIENCE_S)
    assert {machine.show(one, "NRestarts") for one in services} == {"0"}
