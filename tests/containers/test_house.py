"""A locker house put together by hand: broker, store and units as containers on a network of ours.

For what cannot be done to the whole system without spoiling it for others: a disk that is full, a
password that is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest
from pymongo import MongoClient
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from patchbay.access.certificates import make_certificates
from patchbay.access.conf import write_configuration
from patchbay.access.directory import MOSQUITTO, Directory, Owner
from patchbay.access.store_users import make_store_users
from patchbay.access.users import Wanted, make_users
from patchbay.services import discover
from patchbay.testing import eventually
from patchbay_locker.simulator import Behaviour, Board, Unanswered
from tests.containers.engine import PROJECT, Engine

HOST: Final = "house"
UID: Final = 10_020
DISK: Final = "4608k"
"""Room for some hundreds of reports, and for what an outbox keeps free."""

DEADLINE_S: Final = 60.0
QUICK: Final = Behaviour(answer_timeout_s=2.0)


class House:
    """Broker, store, edge and domain on one network. Enter it, then `start` what is wanted."""

    def __init__(self, engine: Engine, unit_image: str, directory: Path, network: Network) -> None:
        self._unit_image = unit_image
        ours = Owner(UID, UID)
        owners = {
            MOSQUITTO: Owner(1883, 1883),
            "units/locker-edge-house": ours,
            "units/locker-domain-house": ours,
            "store/locker": ours,
        }
        self.secrets = Directory(directory / "secrets", owners)
        wanted = Wanted(instances=("locker-edge-house", "locker-domain-house"))
        make_users(self.secrets, discover(), wanted, root="patchbay", database="patchbay")
        make_certificates(self.secrets, ["broker"])
        write_configuration(self.secrets, Path("/mosquitto/data"), at=Path("/secrets/mosquitto"))
        self._network = network
        self._started: list[DockerContainer] = []
        self.admin = self.secrets.password("store", "admin")
        self.broker = self._container(engine.images.broker, "broker", user="1883:1883")
        self.broker.with_command(["mosquitto", "-c", "/secrets/mosquitto/mosquitto.conf"])
        self.store = self._container(engine.images.store, "store")
        self.store.with_env("MONGO_INITDB_ROOT_USERNAME", "admin")
        self.store.with_env("MONGO_INITDB_ROOT_PASSWORD", self.admin)
        self.domain = self._unit("locker.domain")
        self.edge = self._unit("locker.edge").with_exposed_ports(5000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for container in reversed(self._started):
            container.stop()

    async def start(self, *containers: DockerContainer) -> None:
        for container in containers:
            self._started.append(container)
            await asyncio.to_thread(container.start)

    async def stop(self, container: DockerContainer) -> None:
        self._started.remove(container)
        await asyncio.to_thread(container.stop)

    async def make_store_users(self) -> None:
        """Once it listens on its network: its first user is there then."""
        await eventually(self._store_answers, DEADLINE_S)
        await make_store_users(self.secrets, discover(), "patchbay", self._store_uri)

    def board(self, id: str) -> Board:
        return Board(id, self.edge.get_exposed_port(5000), behaviour=QUICK)

    async def healthy(self, unit: DockerContainer) -> bool:
        """What its health check would say."""
        code, _ = await asyncio.to_thread(unit.exec, ["patchbay", "health", "--ready"])
        return code == 0

    def said(self, container: DockerContainer) -> str:
        return b"".join(container.get_logs()).decode()

    def accesses(self, board: str) -> list[dict[str, Any]]:
        with self._client() as client:
            return list(client["patchbay"]["accesses"].find({"board": board}))

    def _container(self, image: str, name: str, **more: Any) -> DockerContainer:
        container = DockerContainer(image, name=f"{self._network.name}-{name}", **more)
        container.with_network(self._network).with_network_aliases(name)
        return container.with_volume_mapping(self.secrets.path, "/secrets", "ro")

    def _unit(self, name: str) -> DockerContainer:
        unit = self._container(
            self._unit_image, name.replace(".", "-"), user=f"{UID}:{UID}", read_only=True
        )
        unit.with_command(["run", name, "--instance", HOST])
        unit.with_tmpfs_mount("/var/lib/patchbay", "size=4m,mode=1777")
        unit.with_tmpfs_mount("/var/lib/patchbay/units", f"size={DISK},mode=1777")
        unit.with_env("PATCHBAY_BROKER__HOST", "broker").with_env("PATCHBAY_BROKER__PORT", "8883")
        unit.with_env("PATCHBAY_BROKER__TLS", "true")
        unit.with_env("PATCHBAY_BROKER__CA_FILE", "/secrets/ca.crt")
        unit.with_env("PATCHBAY_BROKER__PASSWORD_FILE", "/secrets/units/{user}")
        unit.with_env("PATCHBAY_BROKER__BACKOFF_MAX_S", "1")
        unit.with_env("PATCHBAY_STORE__URI", "mongodb://store:27017")
        unit.with_env("PATCHBAY_STORE__USERNAME", "locker")
        return unit.with_env("PATCHBAY_STORE__PASSWORD_FILE", "/secrets/store/{user}")

    @property
    def _store_uri(self) -> str:
        container = self.store.get_wrapped_container()
        container.reload()
        networks = container.attrs["NetworkSettings"]["Networks"]
        return f"mongodb://{networks[self._network.name]['IPAddress']}:27017"

    def _client(self) -> MongoClient[dict[str, Any]]:
        return MongoClient(
            self._store_uri,
            username="admin",
            password=self.admin,
            serverSelectionTimeoutMS=1000,
        )

    async def _store_answers(self) -> bool:
        with contextlib.suppress(Exception), self._client() as client:
            return bool(await asyncio.to_thread(client.admin.command, "ping"))
        return False


@pytest.fixture
def house(engine: Engine, unit_image: str, tmp_path: Path) -> Iterator[House]:
    network = Network()
    network.name = f"{PROJECT}{os.getpid()}-house"
    with network, House(engine, unit_image, tmp_path, network) as house:
        yield house


async def test_a_full_disk_refuses_boards_and_loses_nothing(house: House) -> None:
    await house.start(house.broker, house.store)
    await house.make_store_users()
    await house.start(house.edge, house.domain)
    board = house.board("full")
    await eventually(lambda: house.healthy(house.edge), DEADLINE_S)
    await board.report(accessed=[1], deadline_s=DEADLINE_S)

    await house.stop(house.domain)
    await _report_until_refused(board)
    answered = set(board.accesses)
    assert "is full" in house.said(house.edge)
    assert await house.healthy(house.edge), "a full disk is no reason to be started again"

    await house.start(house.domain)
    await board.report(deadline_s=DEADLINE_S)
    answered |= set(board.accesses)
    board.disconnect()

    async def nothing_is_missing() -> bool:
        found = await asyncio.to_thread(house.accesses, "full")
        assert len({one["_id"] for one in found}) == len(found)
        return {(one["send"], one["cell"]) for one in found} >= {one[1:] for one in answered}

    await eventually(nothing_is_missing, DEADLINE_S)


async def _report_until_refused(board: Board) -> None:
    """Some accesses, then reports by fifties until five of these in a row were refused."""
    for cell in range(2, 30):
        await board.report(accessed=[cell])
    refused = 0
    while refused < 5:
        try:
            await board.pipeline(50)
            refused = 0
        except Unanswered:
            refused += 1
            await asyncio.sleep(0.5)  # an outbox that is full is tried again each second


async def test_a_unit_with_a_wrong_password_waits_for_the_right_one(house: House) -> None:
    right = house.secrets.read("units/locker-edge-house")
    house.secrets.write("units/locker-edge-house", "guessed\n")
    await house.start(house.broker, house.edge)

    async def it_is_refused() -> bool:
        return "not authorised" in await asyncio.to_thread(house.said, house.broker)

    await eventually(it_is_refused, DEADLINE_S)
    assert not await house.healthy(house.edge)
    house.secrets.write("units/locker-edge-house", right)
    await eventually(lambda: house.healthy(house.edge), DEADLINE_S)
