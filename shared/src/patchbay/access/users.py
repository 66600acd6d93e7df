"""Makes the users that there are to be, and writes down what each of them may.

Said again it makes only what is missing, so it can run at every start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from patchbay.access.acl import acl
from patchbay.access.directory import ADMIN, MOSQUITTO, STORE, UNITS, Directory
from patchbay.access.passwords import fits, hashed
from patchbay.access.rights import (
    Grant,
    Person,
    is_unit,
    person_grant,
    session_names,
    unit_grant,
    unit_of,
)
from patchbay.access.store_users import SCRIPT, script
from patchbay.errors import SettingsError
from patchbay.services import DOMAIN, Service

PASSWORDS = f"{MOSQUITTO}/passwords"
ACL = f"{MOSQUITTO}/acl"


class Wanted(Struct, frozen=True, kw_only=True):
    """Who is to be there, beyond those who are: instance ids, names of people, and who goes."""

    instances: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    viewers: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def make_users(
    directory: Directory,
    services: Mapping[str, Service],
    wanted: Wanted,
    *,
    root: str = "patchbay",
    database: str = "patchbay",
) -> list[str]:
    """Make and remove users, and write what mosquitto and mongosh read. Returns who is new,
    ``units/...``. ``root``: the first levels of topics; ``database``: the store's.

    Raises SettingsError, and has made nothing if a name is wrong.
    """
    for instance in wanted.instances:
        unit_of(instance, services)
    people = {Person.OPERATOR: wanted.operators, Person.VIEWER: wanted.viewers}
    _check_people(directory, services, people, wanted.removed)
    kinds = (UNITS, *(person.value for person in Person))
    for name in wanted.removed:
        removed = [directory.remove(kind, name) for kind in kinds]
        if True not in removed:
            raise SettingsError(f"{name}: there is no such user to remove")
    new = [f"{UNITS}/{name}" for name in wanted.instances if directory.add(UNITS, name)]
    for person, names in people.items():
        new += [f"{person.value}/{name}" for name in names if directory.add(person.value, name)]
    in_store = [ADMIN, *(name for name, one in services.items() if DOMAIN in one.roles)]
    new += [f"{STORE}/{name}" for name in in_store if directory.add(STORE, name)]
    directory.write(ACL, acl(grants(directory, services, root)))
    directory.write(PASSWORDS, _password_file(directory))
    directory.write(SCRIPT, script(directory, services, database))
    return new


def grants(directory: Directory, services: Mapping[str, Service], root: str) -> dict[str, Grant]:
    """What each user of the broker may, by user name. Raises SettingsError."""
    instances = directory.names(UNITS)
    found = {one: unit_grant(one, instances, services, root) for one in instances}
    for person in Person:
        for name in directory.names(person.value):
            for session in session_names(name):
                found[session] = person_grant(person, session, services, root)
    return found


def _check_people(
    directory: Directory,
    services: Mapping[str, Service],
    people: Mapping[Person, Iterable[str]],
    removed: Iterable[str],
) -> None:
    """One name is one user: no unit's, and no viewer's who is an operator."""
    taken = {
        name: person
        for person in Person
        for name in directory.names(person.value)
        if name not in removed
    }
    for person, names in people.items():
        for name in names:
            if taken.setdefault(name, person) is not person:
                raise SettingsError(f"{name}: is among the {taken[name].value} already")
            if is_unit(name, services):
                raise SettingsError(f"{name}: would be the name of a unit, not of a person")


def _password_file(directory: Directory) -> str:
    """Mosquitto's password file. A hash that still fits stays, so nothing changes for nothing."""
    old: dict[str, str] = {}
    if directory.has(PASSWORDS):
        lines = directory.read(PASSWORDS).splitlines()
        old = {name: digest for name, _, digest in (line.partition(":") for line in lines)}
    passwords = {name: directory.password(UNITS, name) for name in directory.names(UNITS)}
    for person in Person:
        for name in directory.names(person.value):
            secret = directory.password(person.value, name)
            passwords |= dict.fromkeys(session_names(name), secret)
    return "".join(
        f"{name}:{old[name] if name in old and fits(secret, old[name]) else hashed(secret)}\n"
        for name, secret in passwords.items()
    )
