"""What `up` would run, from settings alone."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import Struct

from patchbay.errors import SettingsError
from patchbay.services import Service, discover
from patchbay.settings import Config
from patchbay.up.plan import Plan, make_plan

STATE = Path("/state")


class TwoPorts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a made-up service."""

    port: int = 5000
    page_port: int = 8888
    listen_host: str | None = None


class NoPorts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a made-up service that listens nowhere."""


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that the made-up services can name."""
    module = ModuleType("made_up_services")
    module.__dict__.update(TwoPorts=TwoPorts, NoPorts=NoPorts)
    monkeypatch.setitem(sys.modules, module.__name__, module)


LANTERN = Service(
    name="lantern",
    settings="made_up_services:TwoPorts",
    roles={"api": "x:run", "domain": "x:run"},
    demo="x:run",
    ports={"lantern": "port", "page": "page_port"},
)
MESH = Service(name="mesh", settings="made_up_services:NoPorts", roles={"uart": "x:run"})


def plan(only: tuple[str, ...] = (), **environ: str) -> Plan:
    services = {"lantern": LANTERN, "mesh": MESH}
    settings = {f"PATCHBAY_{key}": value for key, value in environ.items()}
    return make_plan(Config.read(None, settings, services), STATE, only)


def names(made: Plan) -> list[str]:
    return [program.name for program in made.programs]


def test_everything_runs_a_unit_a_process_after_broker_and_store() -> None:
    assert names(plan()) == ["broker", "store", "lantern.api", "lantern.domain", "mesh.uart"]


def test_demo_adds_the_simulated_devices_and_binds_to_loopback() -> None:
    made = plan(RUNTIME__DEMO="true")
    assert names(made)[-1] == "lantern.demo"
    assert {port.host for port in made.ports} == {"127.0.0.1"}


def test_demo_shows_where_simulated_devices_listen() -> None:
    services = discover()

    def addresses(**given: str) -> dict[str, str]:
        environ = {f"PATCHBAY_{name}": value for name, value in given.items()}
        config = Config.read(None, {**environ, "PATCHBAY_RUNTIME__DEMO": "true"}, services)
        return make_plan(config, Path("/state"), ["allocator", "mesh"]).addresses

    shown = addresses(RUNTIME__PORT_OFFSET="100", RUNTIME__STATE_DIR="/state")
    assert shown["combinator-1"] == "127.0.0.1:8473"
    assert shown["combinator-2"] == "127.0.0.1:8474"
    assert shown["mesh-root"] == "/state/mesh-root"
    real = addresses(ALLOCATOR__COMBINATORS='["mixer-1:5000"]', MESH__SERIAL="/dev/ttyUSB0")
    assert not {"combinator-1", "mesh-root"} & set(real)


def test_without_demo_devices_connect_from_anywhere_but_broker_and_store_stay_on_loopback() -> None:
    assert {port.name: port.host for port in plan().ports} == {
        "mqtt": "127.0.0.1",
        "mongo": "127.0.0.1",
        "lantern": "0.0.0.0",
        "page": "0.0.0.0",
    }


def test_addresses_are_for_connecting_from_this_machine_and_know_the_offset() -> None:
    assert plan(RUNTIME__PORT_OFFSET="10000").addresses == {
        "mqtt": "127.0.0.1:11883",
        "mongo": "mongodb://127.0.0.1:37017",
        "lantern": "127.0.0.1:15000",
        "page": "127.0.0.1:18888",
    }


def test_only_runs_a_part() -> None:
    made = plan(("mesh",))
    assert names(made) == ["broker", "store", "mesh.uart"]
    assert set(made.addresses) == {"mqtt", "mongo"}


@pytest.mark.parametrize("wrong", ["lamp", "lantern.api"])
def test_only_takes_the_names_of_services(wrong: str) -> None:
    with pytest.raises(SettingsError, match="lantern"):
        plan((wrong,))


def test_a_store_that_is_named_is_not_started() -> None:
    made = plan(STORE__URI="mongodb://db.local:27017")
    assert "store" not in names(made)
    assert made.addresses["mongo"] == "mongodb://db.local:27017"
    assert "mongo" not in {port.name for port in made.ports}


def test_a_broker_elsewhere_is_not_started_nor_moved() -> None:
    made = plan(BROKER__HOST="broker.local", RUNTIME__PORT_OFFSET="10000")
    assert "broker" not in names(made)
    assert made.addresses["mqtt"] == "broker.local:1883"


def test_any_free_port_is_neither_checked_nor_told() -> None:
    made = plan(LANTERN__PORT="0")
    assert "lantern" not in made.addresses


def test_supervised_processes_end_with_their_parent() -> None:
    assert all("--supervised" in program.command for program in plan().programs)


def test_each_unit_has_a_port_for_its_numbers_and_without_one_there_is_none() -> None:
    made = plan(RUNTIME__METRICS_PORT="9100", RUNTIME__PORT_OFFSET="10000")
    found = {port.name: port.number for port in made.ports if port.name.endswith("metrics")}
    assert found == {
        "lantern.api metrics": 19100,
        "lantern.domain metrics": 19101,
        "mesh.uart metrics": 19102,
    }
    commands = [unit.command[-3:] for unit in made.units]
    assert commands[1] == ["--metrics-port", "9101", "--supervised"]
    assert made.addresses["mesh.uart metrics"] == "127.0.0.1:19102"
    for none in ({}, {"RUNTIME__METRICS_PORT": "0"}):
        made = plan(**none)
        assert not any("metrics" in address for address in made.addresses)
        assert not any("--metrics-port" in unit.command for unit in made.units)
