"""How a service registers itself: by an entry point that names a `Service`.

    [project.entry-points."patchbay.services"]
    locker = "patchbay_locker:SERVICE"

Everything in a `Service` but its name is a reference (``module:attribute``) that is imported when
it is needed and not before: a unit loads the code of its own role and nothing else.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from msgspec import Struct

from patchbay.errors import SettingsError

GROUP: Final = "patchbay.services"
"""The entry point group that services register in."""

DOMAIN: Final = "domain"
"""The role that owns a service's state. Its session at the broker is durable, and the store is its
alone."""


class Rights(Struct, frozen=True, kw_only=True):
    """What one role may publish and subscribe to beyond what every unit may.

    Topic filters below the root, ``locker/+/event/report``; ``<instance>`` stands for the unit's
    own instance id. `patchbay.access.rights` says what every unit may, so none of that stands
    here. Both are complete and no wider than needed: the broker's ACL is made of them.
    """

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


class Service(Struct, frozen=True, kw_only=True):
    """What the runtime, the launcher and the command line know of a service."""

    name: str
    settings: str
    """The Struct of its settings table."""
    roles: dict[str, str]
    """Role -> ``async def run(unit: Unit) -> None``."""
    rights: dict[str, Rights] = {}
    """Role -> the topics of that role."""
    commands: tuple[str, ...] = ()
    """The commands that operators may give, by name, where a domain and its edges have others
    between them that nobody else should give. Empty: all that the domain hears."""
    collections: tuple[str, ...] = ()
    """The store's collections that its domain reads and writes, but for those that all share."""
    demo: str | None = None
    """Its simulated devices: ``async def run(config: Config, stop: asyncio.Event) -> None``."""
    demo_addresses: str | None = None
    """Where its simulated devices are found, if they listen: ``def addresses(config) -> dict[str,
    str]``, name -> address. `up --demo` prints them."""
    chaos: str | None = None
    """Its load for `patchbay chaos`: a subclass of `patchbay.chaos.load.Load`."""
    cli: str | None = None
    """Its group of commands (a typer app)."""
    check: str | None = None
    """Finds settings that contradict those of other tables: ``def check(config: Config) -> None``,
    raises SettingsError. `up` calls it before it starts anything; a unit calls it for itself."""
    prompt: bool = False
    """A device waits for what its domain decides: the domain does not step back behind the others
    (`patchbay.priority`)."""
    ports: dict[str, str] = {}
    """Address name (``locker``) -> the settings key of its port (``port``)."""

    def function(self, role: str) -> str:
        """The reference of the function that runs ``role``. Raises SettingsError if unknown."""
        try:
            return self.roles[role]
        except KeyError:
            known = _listed(f"{self.name}.{role}" for role in self.roles)
            raise SettingsError(
                f"{self.name}.{role}: no such unit; {self.name} has {known}"
            ) from None


def discover() -> dict[str, Service]:
    """The installed services, sorted by name. Raises SettingsError for one that is broken."""
    services = []
    for entry in entry_points(group=GROUP):
        try:
            services.append(resolve(entry.value))
        except (ImportError, AttributeError) as error:
            where = entry.dist.name if entry.dist is not None else entry.value
            raise SettingsError(f"{where}: installed and broken: {error}") from error
    return {service.name: service for service in sorted(services, key=operator.attrgetter("name"))}


def resolve(reference: str) -> Any:
    """Import what ``module:attribute`` names. Raises ImportError or AttributeError."""
    module, _, attribute = reference.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


def units(services: Mapping[str, Service], names: Iterable[str]) -> list[tuple[Service, str]]:
    """The (service, role) of each name: ``locker.edge`` is one unit, ``locker`` all its roles.

    Each stands there once, in the order named. Raises SettingsError for an unknown name, and says
    which there are.
    """
    found: dict[tuple[str, str], tuple[Service, str]] = {}
    for name in names:
        service_name, dot, role = name.partition(".")
        service = services.get(service_name)
        if service is None:
            raise SettingsError(f"{name}: no such service; there are {_listed(services)}")
        for one in [role] if dot else service.roles:
            service.function(one)
            found[service.name, one] = (service, one)
    return list(found.values())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
