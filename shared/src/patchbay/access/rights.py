"""What each user of the broker may publish and read.

A unit may what `Service.rights` says of its role, and beyond that what every unit does:

    status/<instance>               publish its own; read those of its service's units
    status/<instance>/info          publish its own; the domain reads those of its edges
    dead/<service>                  publish; its domain reads
    ack/<instance>                  an edge reads its own; the domain publishes those of its edges
    fence/<instance>                a domain, its own
    reply/#                         publish, if it serves commands
    reply/<instance>                read its own
    forget/<service>                a domain reads its own
    confirm/<instance>              read its own, if it serves commands; publish its service's

Domains and edges of another service share no topic. A person is a viewer, who reads what carries
no secret, or an operator, who reads all, publishes the commands that domains serve, and clears what
units have left behind that are gone (`patchbay forget`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from msgspec import Struct

from patchbay.errors import SettingsError
from patchbay.services import DOMAIN, Rights, Service
from patchbay.topics import Topics

INSTANCE = "<instance>"
"""In a filter of `Rights`: the unit's own instance id."""

SESSIONS = 8
"""Names that a person has: a client id is bound to a user name, so each connection needs its own.
Eight windows are enough for one person."""

Filters = tuple[str, ...]


class Person(Enum):
    """What somebody is who is no unit. The value is the name of their directory."""

    OPERATOR = "operators"
    VIEWER = "viewers"


class Grant(Struct, frozen=True):
    """Topic filters, whole: what one user may publish, and what reaches it."""

    publish: Filters
    subscribe: Filters


def unit_of(instance: str, services: Mapping[str, Service]) -> tuple[Service, str]:
    """The service and role of an instance id, ``locker-edge-pi1``. Raises SettingsError."""
    prefixes = {
        f"{service.name}-{role}-": (service, role)
        for service in services.values()
        for role in service.roles
    }
    for prefix in sorted(prefixes, key=len, reverse=True):  # the role may go on after a dash
        if instance.startswith(prefix) and instance != prefix:
            return prefixes[prefix]
    known = ", ".join(f"{prefix}NAME" for prefix in prefixes)
    raise SettingsError(f"{instance}: no instance of a unit; they are named {known}")


def is_unit(name: str, services: Mapping[str, Service]) -> bool:
    """Would this be the instance id of a unit?"""
    try:
        unit_of(name, services)
    except SettingsError:
        return False
    return True


def unit_grant(
    instance: str, instances: Iterable[str], services: Mapping[str, Service], root: str
) -> Grant:
    """What the unit with this instance id may, among all that there are. Raises SettingsError."""
    service, role = unit_of(instance, services)
    rights = service.rights.get(role, Rights())
    topics = Topics(root)
    siblings = [one for one in instances if unit_of(one, services)[0] is service]
    publish = [topics.unit_status(instance), topics.unit_info(instance), topics.dead(service.name)]
    subscribe = [topics.reply(instance), *(topics.unit_status(one) for one in siblings)]
    if _serves(service, role):
        publish.append(topics.reply("#"))
        subscribe.append(topics.confirm(instance))
    publish += [topics.confirm(one) for one in siblings if _serves(*unit_of(one, services))]
    if role == DOMAIN:
        publish.append(topics.fence(instance))
        subscribe += [topics.fence(instance), topics.dead(service.name)]
        subscribe.append(topics.forget(service.name))
        edges = [one for one in siblings if unit_of(one, services)[1] != DOMAIN]
        publish += [topics.ack(one) for one in edges]
        subscribe += [topics.unit_info(one) for one in edges]
    else:
        subscribe.append(topics.ack(instance))
    publish += [_whole(one, instance, root) for one in rights.publish]
    subscribe += [_whole(one, instance, root) for one in rights.subscribe]
    return Grant(tuple(publish), tuple(subscribe))


def person_grant(person: Person, name: str, services: Mapping[str, Service], root: str) -> Grant:
    """What a person may under this name. Each may send itself something on its reply topic."""
    topics = Topics(root)
    own = topics.reply(name)  # what it retains elsewhere would have no bound
    if person is Person.VIEWER:
        return Grant(
            (own,),
            (
                own,
                f"{own}/#",
                topics.event("+", "+", "+"),
                topics.state("+", "+"),
                topics.status("+", "+"),
                topics.unit_status("+"),
                topics.unit_info("+"),
            ),
        )
    publish = (
        *commands(services, root),
        topics.confirm("+"),
        own,
        topics.forget("+"),
        topics.unit_status("+"),
        topics.unit_info("+"),
    )
    return Grant(publish, (topics.everything(),))


def commands(services: Mapping[str, Service], root: str) -> Filters:
    """The commands that domains serve, as filters."""
    found: list[str] = []
    for service in services.values():
        heard = service.rights.get(DOMAIN, Rights()).subscribe
        for pattern in filter(_serves_commands, heard):
            every = pattern.removesuffix("+")
            found += [f"{root}/{every}{name}" for name in service.commands or ("+",)]
    return tuple(found)


def session_names(name: str) -> Filters:
    """The user names of a person: ``operator``, ``operator.2`` and so on."""
    return (name, *(f"{name}.{number}" for number in range(2, SESSIONS + 1)))


def _serves(service: Service, role: str) -> bool:
    """Does this role answer commands?"""
    return any(map(_serves_commands, service.rights.get(role, Rights()).subscribe))


def _serves_commands(pattern: str) -> bool:
    """As `patchbay.bus.Commands` subscribes: all names, so that an unknown one is answered."""
    return pattern.endswith("/cmd/+")


def _whole(pattern: str, instance: str, root: str) -> str:
    return f"{root}/{pattern.replace(INSTANCE, instance)}"
