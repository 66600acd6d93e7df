"""The settings of the service, and what follows from them."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from patchbay.errors import SettingsError
from patchbay.runtime import Unit
from patchbay.services import discover
from patchbay.settings import Config
from patchbay.testing import PATIENCE_S
from patchbay.up.plan import make_plan
from patchbay_allocator import SERVICE
from patchbay_allocator.settings import combinators
from patchbay_allocator.simulator import run as run_demo


def read(**environ: str) -> Config:
    named = {f"PATCHBAY_{key}": value for key, value in environ.items()}
    return Config.read(None, named, discover())


def test_combinators_are_numbered_as_they_are_listed() -> None:
    listed = '["mixer-1:5000", "10.0.0.2:5001", "[fe80::1]:5002"]'
    assert combinators(read(ALLOCATOR__COMBINATORS=listed)) == {
        1: ("mixer-1", 5000),
        2: ("10.0.0.2", 5001),
        3: ("fe80::1", 5002),
    }


def test_without_a_list_there_are_those_of_the_demo_or_none() -> None:
    assert combinators(read()) == {}
    demo = read(RUNTIME__DEMO="true", RUNTIME__PORT_OFFSET="10")
    assert combinators(demo) == {1: ("127.0.0.1", 8383), 2: ("127.0.0.1", 8384)}


@pytest.mark.parametrize("wrong", ["mixer", "mixer:", ":5000", "a b:5000", "fe80::1:5000"])
def test_what_is_no_address_is_refused_by_its_name(wrong: str) -> None:
    with pytest.raises(SettingsError, match="PATCHBAY_ALLOCATOR__COMBINATORS"):
        read(ALLOCATOR__COMBINATORS=f'["{wrong}"]')


@pytest.mark.parametrize(
    ("role", "group", "durable"),
    [("domain", "", True), ("domain", "g", False), ("intake", "", False)],
)
async def test_a_replica_leaves_no_session_behind_that_goes_on_drawing(
    role: str, group: str, durable: bool
) -> None:
    config = read(ALLOCATOR__SHARE_GROUP=group)
    unit = Unit(SERVICE, role, config, f"allocator-{role}-test", asyncio.Event())
    assert unit.bus.durable is durable


@pytest.mark.parametrize(
    ("address", "environ", "named"),
    [
        ("localhost:5000", {}, r"port locker \(\[locker\] port\)"),
        ("127.0.0.1:5001", {}, r"port mesh \(\[mesh\] port\)"),
        ("[::1]:1883", {"BROKER__BIND_HOST": "::"}, r"port mqtt \(\[broker\] port\)"),
        ("localhost:27017", {}, r"port mongo \(\[store\] port\)"),
        ("0.0.0.0:8372", {}, r"port allocator \(\[allocator\] port\)"),
        ("localhost:9102", {"RUNTIME__METRICS_PORT": "9101"}, r"\[runtime\] metrics_port"),
        (f"{socket.gethostname()}:5000", {}, r"\[locker\] port"),
        ("localhost:5100", {"RUNTIME__PORT_OFFSET": "100"}, r"\[locker\] port"),
        ("10.9.8.7:5000", {"LOCKER__LISTEN_HOST": "10.9.8.7"}, r"\[locker\] port"),
    ],
)
def test_a_combinator_on_a_port_of_our_own_is_refused_with_the_setting(
    address: str, environ: dict[str, str], named: str
) -> None:
    config = read(ALLOCATOR__COMBINATORS=f'["mixer:5000", "{address}"]', **environ)
    with pytest.raises(SettingsError, match=rf"combinators: .*{named}") as refusal:
        combinators(config)
    assert "\n" not in str(refusal.value)
    with pytest.raises(SettingsError, match=named):  # `up` does not even start it
        make_plan(config, Path())


@pytest.mark.parametrize(
    ("address", "environ"),
    [
        ("mixer:5000", {}),
        ("192.0.2.7:5000", {}),
        ("localhost:5002", {}),
        ("localhost:5000", {"LOCKER__PORT": "5500"}),
        ("localhost:5000", {"RUNTIME__PORT_OFFSET": "100"}),
        ("localhost:5000", {"LOCKER__LISTEN_HOST": "10.9.8.7"}),
        ("localhost:1883", {"BROKER__HOST": "broker.example"}),
    ],
)
def test_a_combinator_elsewhere_is_taken(address: str, environ: dict[str, str]) -> None:
    host, port = address.split(":")
    config = read(ALLOCATOR__COMBINATORS=f'["{address}"]', **environ)
    assert combinators(config) == {1: (host, int(port))}


async def test_the_chromebooks_of_the_demo_have_names_of_their_own() -> None:
    """Not the default of the reference client, which would be taken for one of them."""
    names: asyncio.Queue[str] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.put_nowait(json.loads(await reader.read())["ClientName"])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = read(
        ALLOCATOR__PORT=str(port),
        ALLOCATOR__COMBINATORS="[]",
        ALLOCATOR__DEMO_INTERVAL_S="0.01",
        RUNTIME__DEMO="true",
    )
    stop = asyncio.Event()
    demo = asyncio.create_task(run_demo(config, stop))
    async with asyncio.timeout(PATIENCE_S):
        found = {await names.get() for _ in range(5)}
    stop.set()
    await demo
    server.close()
    assert all(name.startswith("DEMO_CHROMEBOOK_") for name in found)
