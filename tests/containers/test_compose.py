"""The whole system of compose.yaml comes up from nothing, and is closed where it has to be."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from patchbay.bus import Bus
from patchbay.errors import Unavailable
from patchbay.services import DOMAIN, discover, units
from patchbay.testing import Seen, eventually, until
from patchbay_locker.simulator import Board
from tests.containers.composed import System, described, settings_port
from tests.containers.engine import COMPOSES, ROOT, Engine
from tests.containers.honest import deliver_a_code

ASK_TIMEOUT_S = 20.0

SMALL_PI_BYTES = 932 * 1024 * 1024
"""What a Pi of 1 GB has to give (docs/containers.md)."""


async def test_every_unit_is_a_container_and_all_are_healthy(system: System) -> None:
    """The fixture has waited for their health checks; here is what there is."""
    expected = {f"{service.name}-{role}" for service, role in units(discover(), discover())}
    assert set(system.containers()) == expected | {"broker", "store"}
    ended = {one.attrs["State"]["ExitCode"] for one in system.all_containers()}
    assert ended == {0}


async def test_a_board_is_answered_and_a_code_is_delivered(system: System) -> None:
    await deliver_a_code(system, "1492")


async def test_a_viewer_reads_and_cannot_command(system: System) -> None:
    board = Board("watched", system.ports["locker"])
    async with system.bus("viewer", "viewers") as viewer:
        seen = Seen()
        viewer.subscribe(viewer.topics.state("locker", "watched"), seen.take)
        await viewer.wait_connected(ASK_TIMEOUT_S)
        await board.report()
        await until(lambda: seen, ASK_TIMEOUT_S)
        topic = viewer.topics.command("locker", "watched", "block")
        assert await _is_refused(viewer, topic)
    await board.report()
    assert not board.blocked
    board.disconnect()


async def _is_refused(bus: Bus, topic: str) -> bool:
    """Did the broker refuse this, with PUBACK 0x87?"""
    try:
        return await bus.publish(topic, b"{}") == 0x87
    except Unavailable:
        return False


async def test_a_wrong_password_gets_nobody_in(system: System) -> None:
    bus = system.bus("operator.2", "operators", password="guessed")
    bus.start()
    try:
        with pytest.raises(TimeoutError):
            await bus.wait_connected(2)
    finally:
        await bus.stop()
    logs = system.container("broker").logs(tail=200).decode()
    assert "not authorised" in logs


def test_no_unit_can_read_the_secrets_of_another(system: System) -> None:
    units = [name for name in system.containers() if name not in ("broker", "store")]
    secrets = {f"units/{unit}-compose" for unit in units}
    secrets |= {"operators/operator", "viewers/viewer", "store/admin", "mosquitto/server.key"}
    secrets |= {"ca/ca.key", *(f"store/{service}" for service in discover())}
    for unit in units:
        tried = "; ".join(f"cat /secrets/{one} >/tmp/x && echo {one}" for one in sorted(secrets))
        _, output = system.execute(unit, f"({tried}) 2>/tmp/x")
        own = {f"units/{unit}-compose"}
        if unit.endswith(DOMAIN):
            own.add(f"store/{unit.partition('-')[0]}")
        assert set(output.split()) == own, unit


def test_containers_may_do_nothing_but_their_work(system: System) -> None:
    for name, container in system.containers().items():
        host = container.attrs["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name
        assert host["LogConfig"]["Config"]["max-size"], name
        _, uid = system.execute(name, "id -u")
        assert int(uid) != 0, name
        assert system.execute(name, "touch /usr/x")[0] != 0, name


def test_the_image_has_nothing_that_builds(system: System) -> None:
    for tool in ("pip", "pip3", "gcc", "cc", "make", "git"):
        assert system.execute("locker-edge", f"command -v {tool}")[0] != 0, tool
    for module in ("pip", "flit_core", "pytest", "mypy", "secantus"):
        assert system.execute("locker-edge", f"python -c 'import {module}'")[0] != 0, module


def test_everything_together_takes_less_memory_than_a_small_pi_has(system: System) -> None:
    taken = allowed = 0
    for name, container in system.containers().items():
        limit = container.attrs["HostConfig"]["Memory"]
        assert limit, f"{name} has no limit"
        allowed += limit
        taken += container.stats(stream=False)["memory_stats"]["usage"]
    assert taken < SMALL_PI_BYTES * 3 / 4, "the system of the Pi wants to live too"
    assert allowed <= SMALL_PI_BYTES


def test_only_device_ports_are_published(system: System) -> None:
    expected = {
        number
        for service in discover().values()
        for number in (settings_port(service, key) for key in service.ports.values())
    }
    published: dict[str, set[int]] = {}
    for name, container in system.containers().items():
        for port, bindings in container.attrs["NetworkSettings"]["Ports"].items():
            if bindings:
                published.setdefault(name, set()).add(int(port.partition("/")[0]))
    assert published.pop("broker") == {8883}, "by compose.broker.yaml, so that the tests reach it"
    assert set().union(*published.values()) == expected
    alone = system.compose("config", files=())
    assert "8883" not in "".join(line for line in alone.splitlines() if "published" in line)


OVERRIDES = sorted(one.name for one in ROOT.glob("compose.?*.yaml"))
PROFILES = ("demo", "scale", "cli")


def config(compose: tuple[str, ...], files: tuple[str, ...], profiles: tuple[str, ...]) -> str:
    """What this compose makes of the files; it must have nothing to say about them."""
    chosen = [part for file in ("compose.yaml", *files) for part in ("-f", file)]
    for profile in profiles:
        chosen += ["--profile", profile]
    done = subprocess.run(
        [*compose, *chosen, "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), (compose, done.stderr)
    return done.stdout


@pytest.fixture(params=COMPOSES, ids=lambda version: f"compose {version}")
def compose(request: pytest.FixtureRequest, engine: Engine) -> tuple[str, ...]:
    """Each compose that takes our files."""
    if request.param not in engine.composes:
        pytest.skip(f"compose {request.param} is not installed, and could not be had")
    return engine.composes[request.param]


@pytest.mark.parametrize(
    "files", [(), *((one,) for one in OVERRIDES), tuple(OVERRIDES)], ids=" ".join
)
@pytest.mark.parametrize("profiles", [(), *((one,) for one in PROFILES)], ids=" ".join)
def test_every_compose_accepts_the_files(
    compose: tuple[str, ...], files: tuple[str, ...], profiles: tuple[str, ...]
) -> None:
    assert "locker-edge" in config(compose, files, profiles)


def test_one_service_builds_the_image_of_all(compose: tuple[str, ...]) -> None:
    """Compose 2 would build it for all at once, and find that it exists already."""
    said = config(compose, (), PROFILES).splitlines()
    assert said.count("    build:") == 1


async def test_what_is_made_again_finds_what_it_had(system: System) -> None:
    """A unit's volume, its name and its password outlive its container."""
    board = Board("again", system.ports["locker"])
    await board.report()
    await asyncio.to_thread(system.container("locker-domain").stop, timeout=10)
    await board.report(accessed=[3])  # in the outbox now, and nowhere else
    board.disconnect()
    recreate = ("up", "--detach", "--no-deps", "--force-recreate", "locker-edge")
    await asyncio.to_thread(system.compose, *recreate)
    await asyncio.to_thread(system.container("locker-domain").start)

    async def it_is_kept() -> bool:
        return bool(await asyncio.to_thread(system.documents, "accesses", {"board": "again"}))

    await eventually(it_is_kept, ASK_TIMEOUT_S)
    await asyncio.to_thread(system.healthy)


def test_compose_yaml_and_the_engine_agree_on_the_services(system: System) -> None:
    running = {one.labels["com.docker.compose.service"] for one in system.all_containers()}
    assert running <= set(described())
