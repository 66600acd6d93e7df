"""The whole system of compose.yaml in an engine, for tests: its containers, and its operator.

Every port is a free one on loopback, the project's name has our pid in it, and everything that was
made is removed at the end.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from docker.models.containers import Container
from docker.models.networks import Network
from pymongo import MongoClient

from patchbay.bus import Bus
from patchbay.services import Service, discover, resolve
from patchbay.settings import BrokerSettings
from patchbay.testing import free_port
from patchbay.topics import Topics
from tests.containers.engine import IMAGE, PROJECT, ROOT, Engine

HOST: Final = "compose"
"""The name of the containers' host, in instance ids."""

START_TIMEOUT_S: Final = 180.0
HEALTHY_TIMEOUT_S: Final = 90.0
HEALTH_INTERVAL: Final = "2s"

_SERVICE = re.compile(r"^  ([a-z][a-z0-9-]*):", re.MULTILINE)


def described() -> tuple[str, ...]:
    """The names of the services in compose.yaml."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    [services] = re.findall(r"^services:\n(.*?)^\w", text, re.MULTILINE | re.DOTALL)
    return tuple(_SERVICE.findall(services))


def settings_port(service: Service, key: str) -> int:
    """The port that this settings key has by default."""
    number: int = getattr(resolve(service.settings)(), key)
    return number


class System:
    """What compose.yaml says, in a project of our own. `up`, and at the end `down`.

    ``version``: by which compose; None for the one that is there.
    """

    def __init__(self, engine: Engine, directory: Path, version: int | None = None) -> None:
        self.engine = engine
        self.directory = directory
        self.project = f"{PROJECT}{os.getpid()}{f'-{version}' if version else ''}"
        self.ports: dict[str, int] = {}
        """Address name (``locker``) -> the port on loopback."""
        self.broker_port = free_port()
        self._compose = engine.composes[version or next(iter(engine.composes))]
        self._environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith("PATCHBAY_")},
            **engine.images.variables,
            "COMPOSE_PROJECT_NAME": self.project,
            "DOCKER_BUILDKIT": "0" if engine.images.stand_ins else "1",
            "PATCHBAY_IMAGE": IMAGE,
            "PATCHBAY_HEALTH_INTERVAL": HEALTH_INTERVAL,
            "PATCHBAY_BROKER_NAMES": "localhost 127.0.0.1",
            "PATCHBAY_BROKER__PORT": f"127.0.0.1:{self.broker_port}",
        }
        for service in discover().values():
            for name, key in service.ports.items():
                self.ports[name] = free_port()
                variable = f"PATCHBAY_{service.name.upper()}__{key.upper()}"
                self._environ[variable] = f"127.0.0.1:{self.ports[name]}"

    # The project

    def up(self, *arguments: str) -> None:
        """Start; raises RuntimeError with the end of what compose said."""
        self.compose("up", "--detach", *arguments)

    def down(self) -> None:
        """Stop and remove everything: containers, networks, volumes."""
        self.compose("--profile", "demo", "--profile", "scale", "down", "--volumes", "--timeout=10")

    def compose(self, *arguments: str, files: tuple[str, ...] = ("compose.broker.yaml",)) -> str:
        """Run compose to its end; returns what it printed."""
        chosen = [part for file in ("compose.yaml", *files) for part in ("-f", file)]
        done = subprocess.run(
            [*self._compose, *chosen, *arguments],
            cwd=ROOT,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"compose {' '.join(arguments)}: {done.stderr[-3000:]}")
        return done.stdout

    # Its containers

    def containers(self) -> dict[str, Container]:
        """Service name -> its container, of those that are to stay; not the one-shot ones."""
        return {
            one.labels["com.docker.compose.service"]: one
            for one in self.all_containers()
            if one.attrs["HostConfig"]["RestartPolicy"]["Name"] != "no"
        }

    def all_containers(self) -> list[Container]:
        mine = {"label": f"com.docker.compose.project={self.project}"}
        return list(self.engine.client.containers.list(all=True, filters=mine))

    def container(self, service: str) -> Container:
        return self.containers()[service]

    def healthy(self, timeout_s: float = HEALTHY_TIMEOUT_S) -> None:
        """Wait until all containers are healthy. Raises TimeoutError that names those that are not,
        and says what they said last."""
        deadline = time.monotonic() + timeout_s
        while True:
            sick = {
                name: one for name, one in self.containers().items() if _health(one) != "healthy"
            }
            if not sick:
                return
            if time.monotonic() > deadline:
                said = {name: one.logs(tail=5).decode() for name, one in sick.items()}
                raise TimeoutError(f"not healthy: {json.dumps(said, indent=1)}")
            time.sleep(0.2)

    def starts(self) -> dict[str, str]:
        """Service name -> when its container was started last."""
        return {name: _started(container) for name, container in self.containers().items()}

    def crash(self, service: str) -> None:
        """kill -9 everything in a container but its init, which then ends. (`docker kill` would be
        somebody's wish, and the engine would not start it again.) Returns when it runs again."""
        container = self.container(service)
        before = _started(container)
        self.execute(service, "kill -9 -1")
        deadline = time.monotonic() + HEALTHY_TIMEOUT_S
        while True:
            container.reload()
            if container.status == "running" and _started(container) != before:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{service} does not start again: {container.status}")
            time.sleep(0.05)

    def execute(self, service: str, command: str) -> tuple[int, str]:
        """Run a shell command in a container, as its user. Returns the exit code and the output."""
        done = self.container(service).exec_run(["sh", "-c", command])
        return done.exit_code, done.output.decode()

    def network(self, name: str) -> Network:
        [network] = self.engine.client.networks.list(names=[f"^{self.project}_{name}$"])
        return network

    def cut(self, network: str, service: str) -> None:
        """Take a container off a network."""
        self.network(network).disconnect(self.container(service))

    def networks_of(self, service: str) -> list[str]:
        """The networks that a container is on, as compose.yaml calls them."""
        names = self.container(service).attrs["NetworkSettings"]["Networks"]
        return [name.removeprefix(f"{self.project}_") for name in names]

    def mend(self, network: str, service: str) -> None:
        """Put it back, under its name."""
        self.network(network).connect(self.container(service), aliases=[service])

    # Its operator

    def secret(self, file: str) -> str:
        """The text of a file in the volume of secrets."""
        chunks, _ = self.container("broker").get_archive(f"/secrets/{file}")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            content = archive.extractfile(archive.getmembers()[0])
            assert content is not None
            return content.read().decode().strip()

    def bus(self, user: str, kind: str, **changed: Any) -> Bus:
        """A client of this person, ``operator`` of the ``operators``, from outside; not started."""
        authority = self.directory / "ca.crt"
        authority.write_text(self.secret("ca.crt"))
        given: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.broker_port,
            "tls": True,
            "ca_file": str(authority),
            "username": user,
            "password": self.secret(f"{kind}/{user.partition('.')[0]}"),
            "backoff_initial_s": 0.05,
            "backoff_max_s": 0.5,
            **changed,
        }
        settings = BrokerSettings(**given)
        return Bus(settings, client_id=user, topics=Topics(), announce=False)

    def documents(self, collection: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the store holds, asked for as its administrator on its own network."""
        container = self.container("store")
        address = container.attrs["NetworkSettings"]["Networks"][f"{self.project}_storage"]
        with MongoClient[dict[str, Any]](
            f"mongodb://{address['IPAddress']}:27017",
            username="admin",
            password=self.secret("store/admin"),
            serverSelectionTimeoutMS=20_000,
        ) as client:
            return list(client["patchbay"][collection].find(query))


def _health(container: Container) -> str:
    """A simulated device has no health check: that it runs is all that is asked of it."""
    state = container.attrs["State"]
    if not state["Running"]:
        return "down"
    return str(state.get("Health", {}).get("Status", "healthy"))


def _started(container: Container) -> str:
    return str(container.attrs["State"]["StartedAt"])
