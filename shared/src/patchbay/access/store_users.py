"""The users of MongoDB: one a service, whose role reaches its own collections and those that all
services share.

    DIR/store/users.js    for mongosh, as the store's administrator; says all passwords

`make_store_users` does the same without mongosh. A role is replaced each time, so a collection that
is new reaches its service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from patchbay.access.directory import ADMIN, STORE, Directory
from patchbay.services import DOMAIN, Service

SCRIPT: Final = f"{STORE}/users.js"

ACTIONS: Final = (
    "find",
    "insert",
    "update",
    "remove",
    "createCollection",
    "createIndex",
    "collMod",
)
"""What a service does with its own collections."""

SHARED: Final[Mapping[str, tuple[str, ...]]] = {
    "formats": ("find", "insert", "update", "createCollection"),
    "dead": ("find", "insert", "remove", "createCollection", "createIndex", "collMod"),
    "sources": ("find", "insert", "update", "createCollection"),
}
"""Collections of all services, and no more than is done there: dead letters are stored and never
changed, and only the newest stay; who has written a service's documents, and how far the edges'
events have come, are written over, never removed."""

_SCRIPT = """\
// Made by `patchbay broker users`, for mongosh as an administrator. May run again and again.
const ours = db.getSiblingDB(%(database)s);
for (const {role, privileges} of %(roles)s) {
    const name = ours.getRole(role) ? "updateRole" : "createRole";
    ours.runCommand({[name]: role, privileges, roles: []}).ok || quit(1);
}
for (const {user, pwd, roles} of %(users)s) {
    const name = ours.getUser(user) ? "updateUser" : "createUser";
    ours.runCommand({[name]: user, pwd, roles}).ok || quit(1);
}
"""


def roles(services: Mapping[str, Service], database: str) -> list[dict[str, Any]]:
    """A role for each service: its name and its privileges, as MongoDB's createRole takes them."""
    shared = SHARED.items()
    return [
        {
            "role": service.name,
            "privileges": [
                {"resource": {"db": database, "collection": one}, "actions": list(actions)}
                for one, actions in (*((own, ACTIONS) for own in service.collections), *shared)
            ],
        }
        for service in services.values()
        if DOMAIN in service.roles
    ]


def users(directory: Directory, services: Mapping[str, Service]) -> list[dict[str, Any]]:
    """A user for each service, as createUser takes it. Raises SettingsError."""
    return [
        {"user": name, "pwd": directory.password(STORE, name), "roles": [name]}
        for name, service in services.items()
        if DOMAIN in service.roles
    ]


def script(directory: Directory, services: Mapping[str, Service], database: str) -> str:
    """What mongosh has to run. Raises SettingsError."""
    return _SCRIPT % {
        "database": _json(database),
        "roles": _json(roles(services, database)),
        "users": _json(users(directory, services)),
    }


async def make_store_users(
    directory: Directory, services: Mapping[str, Service], database: str, uri: str
) -> list[str]:
    """Make the users of the MongoDB at ``uri``, which has its administrator, or give those who are
    there their password and rights anew. Returns who is new. Raises Unavailable, SettingsError."""
    from patchbay.store import Administrator  # and with it the driver, which nobody else here needs

    async with Administrator(uri, ADMIN, directory.password(STORE, ADMIN)) as administrator:
        for role in roles(services, database):
            definition = {"privileges": role["privileges"], "roles": []}
            await administrator.define(database, "role", role["role"], definition)
        new = []
        for user in users(directory, services):
            definition = {"pwd": user["pwd"], "roles": user["roles"]}
            if await administrator.define(database, "user", user["user"], definition):
                new.append(user["user"])
    return new


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=4).decode()
