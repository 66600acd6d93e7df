"""What `up` is to run and where it listens, worked out from the settings alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from patchbay.errors import SettingsError
from patchbay.services import Service, resolve, units
from patchbay.settings import Config

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
ANY: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  these are compared, not bound

BROKER: Final = "broker"
STORE: Final = "store"
METRICS_KEY: Final = "[runtime] metrics_port"


class Program(Struct, frozen=True):
    """One supervised process: its name, its command, and whether it is a unit, and which."""

    name: str
    command: list[str]
    unit: bool = False


class Port(Struct, frozen=True):
    """A TCP port that something of ours listens on: ``key`` is the setting that moves it."""

    name: str
    key: str
    host: str
    number: int

    @property
    def reach(self) -> str:
        """The host to connect to from this machine."""
        return "127.0.0.1" if self.host in ANY else self.host

    @property
    def address(self) -> str:
        return f"{self.reach}:{self.number}"


class Plan(Struct, frozen=True, kw_only=True):
    """Everything that `up` starts, in the order of its three groups, and all its addresses.

    ``addresses`` names what a script connects to: mqtt, mongo, and each service's own.
    """

    infrastructure: list[Program]
    units: list[Program]
    demos: list[Program]
    ports: list[Port]
    addresses: dict[str, str]

    @property
    def programs(self) -> list[Program]:
        return [*self.infrastructure, *self.units, *self.demos]


def make_plan(config: Config, state: Path, only: Iterable[str] = ()) -> Plan:
    """What to run for these settings: the services of ``only``, or all of them.

    A broker on another host, or a store that ``[store] uri`` names, is somebody else's and is not
    started. Raises SettingsError for an unknown service, a port that the offset pushes too far, or
    what a service's `check` finds.
    """
    selected = _selected(config, only)
    for service in selected:
        if service.check is not None:
            resolve(service.check)(config)
    infrastructure: list[Program] = []
    ports: list[Port] = []
    mqtt = f"{config.broker.host}:{config.broker_port}"
    if (port := _broker_port(config)) is not None:
        ports.append(port)
        mqtt = port.address
        infrastructure.append(_broker(state, port))
    if (port := _store_port(config)) is not None:
        ports.append(port)
        infrastructure.append(_store(state, port.number, config.store.cache_size))
    addresses = {"mqtt": mqtt, "mongo": config.store_uri}
    for service in selected:
        for port in _ports(config, service):
            ports.append(port)
            addresses[port.name] = port.address
    if config.runtime.demo:
        for service in selected:
            if service.demo_addresses is not None:
                addresses |= resolve(service.demo_addresses)(config)
    names = [f"{service.name}.{role}" for service in selected for role in service.roles]
    programs = []
    for number, name in enumerate(names):
        metrics = _metrics_port(config, number)
        programs.append(_unit(name, metrics))
        if metrics:
            host = config.runtime.metrics_host
            port = Port(f"{name} metrics", METRICS_KEY, host, config.port(metrics))
            ports.append(port)
            addresses[port.name] = port.address
    return Plan(
        infrastructure=infrastructure,
        units=programs,
        demos=[_demo(service) for service in selected if config.runtime.demo and service.demo],
        ports=ports,
        addresses=addresses,
    )


def own_ports(config: Config) -> list[Port]:
    """Every port of this host that something of ours listens on, whether it runs or not.

    A device that is looked for on one of them would be one of our own services.
    """
    ports = [port for port in (_broker_port(config), _store_port(config)) if port is not None]
    for service in config.services.values():
        ports.extend(_ports(config, service))
    roles = [f"{one.name}.{role}" for one in config.services.values() for role in one.roles]
    for number, name in enumerate(roles):
        if metrics := _metrics_port(config, number):
            host = config.runtime.metrics_host
            ports.append(Port(f"{name} metrics", METRICS_KEY, host, config.port(metrics)))
    return ports


def _broker_port(config: Config) -> Port | None:
    """The broker's, if it is ours."""
    broker = config.broker
    if broker.host not in LOOPBACK:
        return None
    return Port("mqtt", "[broker] port", broker.bind_host, config.broker_port)


def _store_port(config: Config) -> Port | None:
    """The embedded store's, if that is used."""
    if config.store.uri is not None:
        return None
    return Port("mongo", "[store] port", "127.0.0.1", config.port(config.store.port))


def _selected(config: Config, only: Iterable[str]) -> list[Service]:
    names = [name.strip() for name in only if name.strip()]
    for name in names:
        if "." in name:
            raise SettingsError(f"--only {name}: names services, such as {name.split('.')[0]}")
    if not names:
        return list(config.services.values())
    return list({one.name: one for one, _ in units(config.services, names)}.values())


def _ports(config: Config, service: Service) -> Iterable[Port]:
    """The ports of a service. One that is 0 is any free one: there is nothing to check."""
    table = config.table(service.name, resolve(service.settings))
    host = config.listen_host(getattr(table, "listen_host", None))
    for name, key in service.ports.items():
        number = config.port(getattr(table, key))
        if number:
            yield Port(name, f"[{service.name}] {key}", host, number)


def _python(module: str, *arguments: str) -> list[str]:
    # -P: a file that lies where somebody starts `up` must not hide a module of ours.
    return [sys.executable, "-P", "-m", module, *arguments]


def _broker(state: Path, port: Port) -> Program:
    where = ("--state", str(state / BROKER), "--port", str(port.number), "--host", port.host)
    return Program(BROKER, _python("patchbay.broker", *where, "--supervised"))


def _store(state: Path, port: int, cache_size: str) -> Program:
    where = ("--storage", str(state / STORE), "--port", str(port), "--cache-size", cache_size)
    return Program(STORE, _python("patchbay.embedded", *where, "--supervised"))


def _metrics_port(config: Config, number: int) -> int | None:
    """What the unit with this number has as its port for metrics, before the offset: one each.
    Any free one (0) stays that, and nobody is told."""
    first = config.runtime.metrics_port
    return first and first + number


def _unit(name: str, metrics_port: int | None) -> Program:
    metrics = ["--metrics-port", str(metrics_port)] if metrics_port else []
    return Program(name, _python("patchbay.runtime", name, *metrics, "--supervised"), unit=True)


def _demo(service: Service) -> Program:
    return Program(f"{service.name}.demo", _python("patchbay.up.demo", service.name))
