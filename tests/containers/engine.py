"""A Docker engine and the images that the tests in containers need, or why there are none.

An engine that runs is used as it is. Where none does and we may (root, on Debian), its packages are
installed and it is started for the length of the tests, then ended by its process id; its images
stay for the next time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import docker
from docker import DockerClient
from docker.errors import DockerException, ImageNotFound
from msgspec import Struct

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSES: Final = (1, 2)
"""The versions of compose that take our files."""

_COMMANDS: Final = (("docker-compose",), ("docker", "compose"))
"""Compose 1, or 2 by its old name; compose 2 as the engine's plugin."""

PACKAGES: Final = ("docker.io", "docker-compose", "debootstrap")
START_TIMEOUT_S: Final = 60.0
INSTALL_TIMEOUT_S: Final = 300.0
PROJECT: Final = "patchbay-test-"
"""How everything in the engine is called that is a test's; the pid of the test run follows."""

IMAGE: Final = "patchbay-test"
"""The image of our units, built from this source tree."""


class Missing(Exception):
    """There can be no tests in containers here; the text is the reason, in one line."""


class Images(Struct, frozen=True, kw_only=True):
    """What stands below our own image and beside it."""

    base: str
    build: str
    broker: str
    store: str
    stand_ins: bool

    @property
    def variables(self) -> dict[str, str]:
        """What compose.yaml asks for."""
        return {
            "PATCHBAY_BASE_IMAGE": self.base,
            "PATCHBAY_BUILD_IMAGE": self.build,
            "PATCHBAY_BROKER_IMAGE": self.broker,
            "PATCHBAY_STORE_IMAGE": self.store,
        }


FROM_A_REGISTRY: Final = Images(
    base="python:3.11-slim-bookworm",
    build="python:3.11-slim-bookworm",
    broker="eclipse-mosquitto:2",
    store="mongo:7",
    stand_ins=False,
)
STAND_INS: Final = Images(
    base="patchbay-offline/base",
    build="patchbay-offline/build",
    broker="patchbay-offline/mosquitto",
    store="patchbay-offline/store",
    stand_ins=True,
)


class Engine(Struct, frozen=True):
    """An engine that answers, what may talk compose to it, and the images it has."""

    client: DockerClient
    composes: dict[int, tuple[str, ...]]
    """Version -> command, as far as they are there; never empty. The first one starts things."""
    images: Images

    def said(self) -> str:
        """What ran, for the end of the test run's output."""
        version = self.client.version()["Version"]
        if not self.images.stand_ins:
            return f"engine {version}; {self.images.broker} and {self.images.store}"
        return (
            f"engine {version}; every case on stand-ins: SecantusDB for {FROM_A_REGISTRY.store},"
            f" Debian's Mosquitto for {FROM_A_REGISTRY.broker}"
        )


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[Engine]:
    """An engine with all images. ``directory`` is for its files. Raises Missing."""
    _install()
    with _running(directory) as client:
        _sweep(client)
        yield Engine(client, _composes(directory), _images(client))


def _install() -> None:
    """The engine and compose, where they are missing and we may."""
    wanted = ("dockerd", "docker-compose", "debootstrap")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if os.geteuid() != 0 or not shutil.which("apt-get") or _answers() is not None:
        return
    if all(shutil.which(program, path=path) for program in wanted):
        return
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = _run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *command)
        if done.returncode and command[0] == "install":
            raise Missing(f"apt-get installs no engine: {_last_line(done.stderr)}")


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[DockerClient]:
    """An engine that answers: the one that runs, or one of our own until the end."""
    client = _answers()
    if client is not None:
        yield client
        return
    program = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Missing("no Docker engine answers, and none is installed")
    if os.geteuid() != 0:
        raise Missing("no Docker engine answers, and only root may start one")
    log = directory / "dockerd.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "--pidfile", str(directory / "dockerd.pid")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # a Ctrl-C is for the tests, which then end it
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (client := _answers()) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"dockerd does not start: {_last_line(log.read_text())}")
            time.sleep(0.2)
        yield client
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers() -> DockerClient | None:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException:
        return None
    return client


def _sweep(client: DockerClient) -> None:
    """What a test run that was killed has left behind: its containers would start again."""
    everything = (client.containers, client.networks, client.volumes)
    listed = (client.containers.list(all=True), client.networks.list(), client.volumes.list())
    for kind, found in zip(everything, listed, strict=True):
        for one in found:
            owner = one.name.partition(PROJECT)[2].partition("_")[0].partition("-")[0]
            if one.name.startswith(PROJECT) and not Path(f"/proc/{owner}").exists():
                with contextlib.suppress(DockerException):
                    one.remove(**({} if kind is client.networks else {"force": True}))


def _composes(directory: Path) -> dict[int, tuple[str, ...]]:
    found = {_version(one): one for one in _COMMANDS if shutil.which(one[0])}
    found.pop(0, None)
    if not found:
        raise Missing("an engine, but neither docker-compose nor docker compose")
    if 2 not in found and os.geteuid() == 0 and shutil.which("apt-get"):
        done = _run(str(ROOT / "tools/compose-2"), str(directory / "compose-2"))
        if done.returncode == 0 and _version(program := (done.stdout.strip(),)) == 2:
            found[2] = program
        else:
            print(f"containers: no compose 2: {_last_line(done.stderr)}")
    return found


def _version(command: tuple[str, ...]) -> int:
    """Which compose this is; 0 for what is none."""
    said = re.search(r"ompose version v?(\d+)\.", _run(*command, "version").stdout)
    return int(said[1]) if said else 0


def _images(client: DockerClient) -> Images:
    """Those of the registries if the engine has them, else stand-ins, made if need be."""
    if all(_has(client, name) for name in set(FROM_A_REGISTRY.variables.values())):
        return FROM_A_REGISTRY
    done = _run(str(ROOT / "tools/offline-images"))
    if done.returncode:
        raise Missing(f"an engine, but no images: {_last_line(done.stderr)}")
    return STAND_INS


def _has(client: DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_TIMEOUT_S,
            env=environ,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{command[0]} has not ended after {error.timeout} s") from error


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"
