"""The store's users: what mongosh is told, and that a store with a password lets nobody else in."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from structlog.testing import capture_logs

from patchbay.access.directory import Directory
from patchbay.access.store_users import SHARED, make_store_users, roles, script, users
from patchbay.errors import SettingsError, Unavailable
from patchbay.services import Service, discover
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, Part, store_part

SERVICES = {
    "gate": Service(
        name="gate", settings="", roles={"edge": "", "domain": ""}, collections=("gates",)
    ),
    "relay": Service(name="relay", settings="", roles={"edge": ""}),
}

FAKE_SHELL = """
const there = new Set(JSON.parse(process.argv[2]));
const said = [];
const database = {
    getRole: (name) => there.has(name) ? {} : null,
    getUser: (name) => there.has(name) ? {} : null,
    runCommand: (command) => { said.push(command); return {ok: 1}; },
};
const db = {getSiblingDB: (name) => { said.push(name); return database; }};
const quit = () => process.exit(1);
eval(require("fs").readFileSync(process.argv[3], "utf8"));
console.log(JSON.stringify(said));
"""


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    directory = Directory(tmp_path)
    directory.add("store", "gate")
    return directory


def test_a_service_reaches_its_own_collections_and_the_shared_ones() -> None:
    [role] = roles(SERVICES, "house")
    assert role["role"] == "gate"
    reached = [one["resource"] for one in role["privileges"]]
    assert reached == [{"db": "house", "collection": one} for one in ("gates", *SHARED)]
    assert all("drop" not in action for one in role["privileges"] for action in one["actions"])


def test_no_service_can_change_or_remove_what_another_has_set_aside() -> None:
    [role] = roles(SERVICES, "house")
    actions = {one["resource"]["collection"]: set(one["actions"]) for one in role["privileges"]}
    assert "update" not in actions["dead"]
    assert "remove" not in actions["sources"]
    assert {"update", "remove"} <= actions["gates"]


def test_every_service_with_a_domain_says_its_collections() -> None:
    for service in discover().values():
        assert bool(service.collections) == ("domain" in service.roles), service.name
        assert not set(service.collections) & set(SHARED)


@pytest.mark.parametrize(
    ("there", "commands"),
    [([], ["createRole", "createUser"]), (["gate"], ["updateRole", "updateUser"])],
    ids=["new", "again"],
)
def test_the_script_makes_what_is_missing_and_renews_what_is_there(
    directory: Directory, tmp_path: Path, there: list[str], commands: list[str]
) -> None:
    if shutil.which("node") is None:
        pytest.skip("node, which stands in for mongosh here, is not installed")
    (tmp_path / "users.js").write_text(script(directory, SERVICES, "house"))
    (tmp_path / "shell.cjs").write_text(FAKE_SHELL)
    ran = subprocess.run(
        ["node", tmp_path / "shell.cjs", json.dumps(there), tmp_path / "users.js"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    database, role, user = json.loads(ran.stdout)
    assert database == "house"
    assert [next(iter(role)), next(iter(user))] == commands
    assert role[commands[0]] == user[commands[1]] == "gate"
    assert user["pwd"] == directory.password("store", "gate")
    assert user["roles"] == ["gate"]


@pytest.fixture
def guarded(directory: Directory, tmp_path: Path) -> Iterator[Part]:
    """The embedded store with a password, and with the users that the commands of the script
    make. It checks databases and actions; collections only a MongoDB does."""
    part = store_part(tmp_path / "data")
    part.start()
    client: MongoClient[Any] = MongoClient(f"mongodb://127.0.0.1:{part.port}")
    for role in roles(SERVICES, "house"):
        client.house.command({"createRole": role.pop("role"), **role, "roles": []})
    for user in users(directory, SERVICES):
        client.house.command({"createUser": user.pop("user"), **user})
    client.close()
    part.stop()
    part = store_part(tmp_path / "data", part.port, auth=True)
    part.start()
    yield part
    part.stop()


def store(part: Part, **settings: str | None) -> Store:
    given = StoreSettings(database="house", timeout_s=2.0, **settings)  # type: ignore[arg-type]
    return Store(given, f"mongodb://127.0.0.1:{part.port}")


async def test_with_its_password_a_service_gets_in(guarded: Part, directory: Directory) -> None:
    file = str(directory.path / "store" / "{user}")
    async with store(guarded, username="gate", password_file=file) as one:
        await one.ensure_index("gates", [("at", 1)], expireAfterSeconds=3600)
        assert await one.insert_new("gates", [{"_id": 1}, {"_id": 2}]) == 2
        await one.save("gates", [{"_id": 1, "open": True}])
        assert await one.replace("gates", [({"_id": 2}, {"_id": 2, "open": False})]) == 1
        assert await one.count("gates", {"open": True}) == 1
        assert await one.remove("gates", {"_id": 1}) == 1


async def test_who_may_not_change_an_index_goes_on_with_the_one_that_is_there_and_says_so(
    locked_store: Part, directory: Directory
) -> None:
    uri = f"mongodb://127.0.0.1:{locked_store.port}"
    await make_store_users(directory, SERVICES, "house", uri)
    admin: MongoClient[Any] = MongoClient(
        uri, username="admin", password=directory.password("store", "admin")
    )
    [role] = roles(SERVICES, "house")
    for one in role["privileges"]:
        one["actions"] = [action for action in one["actions"] if action != "collMod"]
    admin.house.command({"updateRole": role.pop("role"), **role})
    file = str(directory.path / "store" / "{user}")
    async with store(locked_store, username="gate", password_file=file) as one:
        await one.ensure_index("gates", [("at", 1)], expireAfterSeconds=3600)
        with capture_logs() as said:
            await one.ensure_index("gates", [("at", 1)], expireAfterSeconds=60)
        assert await one.insert_new("gates", [{"_id": 1}]) == 1
    [warning] = said
    assert warning["event"] == "documents are kept for as long as before"
    assert (warning["collection"], warning["wanted_s"]) == ("gates", 60)
    indexes = admin.house.gates.index_information()
    assert indexes["at_1"]["expireAfterSeconds"] == 3600
    admin.close()


async def test_without_a_password_or_with_a_wrong_one_all_is_refused_and_said(
    guarded: Part, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("guessed")
    for settings in ({}, {"username": "gate", "password_file": str(tmp_path / "wrong")}):
        async with store(guarded, **settings) as one:
            with pytest.raises(Unavailable, match=r"the store refuses us: .*authentication"):
                await one.find("gates", {})
            with pytest.raises(Unavailable, match=r"the store .*authentication"):
                await one.insert_new("gates", [{"_id": 1}])


def test_a_password_file_that_is_missing_is_named_at_the_start() -> None:
    settings = StoreSettings(username="gate", password_file="/nowhere/{user}")
    with pytest.raises(SettingsError, match=r"\[store\] password_file: /nowhere/gate: No such"):
        Store(settings, "mongodb://127.0.0.1:1")


@pytest.fixture
def locked_store(directory: Directory, tmp_path: Path) -> Iterator[Part]:
    """A store that asks for a password and has its administrator, and nobody else."""
    directory.add("store", "admin")
    part = store_part(tmp_path / "locked")
    part.start()
    client: MongoClient[Any] = MongoClient(f"mongodb://127.0.0.1:{part.port}")
    password = directory.password("store", "admin")
    client["admin"].command("createUser", "admin", pwd=password, roles=["root"])
    client.close()
    part.stop()
    part = store_part(tmp_path / "locked", part.port, auth=True)
    part.start()
    yield part
    part.stop()


async def test_users_are_made_by_the_administrator_and_made_again_as_they_are_to_be(
    directory: Directory, locked_store: Part, tmp_path: Path
) -> None:
    uri = f"mongodb://127.0.0.1:{locked_store.port}"
    assert await make_store_users(directory, SERVICES, "house", uri) == ["gate"]
    file = directory.path / "store" / "gate"
    settings = StoreSettings(database="house", username="gate", password_file=str(file))
    async with Store(settings, uri) as store:
        await store.insert_new("gates", [{"_id": 1}])
    file.write_text("another\n")
    async with Store(settings, uri) as store:
        with pytest.raises(Unavailable):
            await store.find("gates", {})
    assert await make_store_users(directory, SERVICES, "house", uri) == []
    async with Store(settings, uri) as store:
        assert await store.find("gates", {}) == [{"_id": 1}]


async def test_who_is_no_administrator_makes_no_users(
    directory: Directory, locked_store: Part
) -> None:
    (directory.path / "store" / "admin").write_text("guessed\n")
    with pytest.raises(Unavailable):
        await make_store_users(
            directory, SERVICES, "house", f"mongodb://127.0.0.1:{locked_store.port}"
        )
