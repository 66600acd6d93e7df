"""``broker/TOPICS.md`` says what the code does: every topic, every message, every field."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec import Struct

import patchbay.log
import patchbay.messages
import patchbay.topics
import patchbay_locker.messages
from patchbay.bus import Message
from patchbay.topics import Topics, matches
from patchbay_locker.board import Publish
from patchbay_locker.desk import Desk
from patchbay_locker.settings import LockerSettings
from tests.pages import ROOT, Table, default, kind, tables

PAGE = "broker/TOPICS.md"
ARGUMENTS = {
    "service": "<service>",
    "device": "<device>",
    "name": "<name>",
    "instance": "<instance>",
    "client": "<client>",
}
NOT_ONE_TOPIC = {"address", "everything"}
FIELD_COLUMNS = ["field", "type", "default", "meaning"]


def the_table(heading: str) -> Table:
    (found,) = [table for table in tables(PAGE) if table.heading == heading]
    return found


def messages_of(module: Any) -> dict[str, type[Struct]]:
    return {
        name: one
        for name, one in vars(module).items()
        if isinstance(one, type) and issubclass(one, Struct) and one.__module__ == module.__name__
    }


MESSAGES = messages_of(patchbay.messages) | messages_of(patchbay_locker.messages)


class Ear:
    """Hears what `Commands` subscribes to, and what it answers."""

    topics = Topics()
    client_id = "locker-domain-test"

    def __init__(self) -> None:
        self.log = patchbay.log.get_logger("test")
        self.handle: Callable[[Message], Awaitable[None]] | None = None
        self.said: list[tuple[str, bytes]] = []

    def subscribe(self, _pattern: str, handler: Callable[[Message], Awaitable[None]]) -> None:
        self.handle = handler

    def post(self, topic: str, payload: bytes) -> None:
        self.said.append((topic, payload))


async def refused() -> tuple[str, dict[str, Any]]:
    """The topic and data of ``event/rejected`` after a command that there is not."""
    ear = Ear()
    Desk(ear, None, LockerSettings(), None)  # type: ignore[arg-type]  # none of them is asked
    assert ear.handle is not None
    await ear.handle(Message(topic="patchbay/locker/1953/cmd/nonsense", payload=b"{}"))
    ((topic, payload),) = ear.said
    data: dict[str, Any] = msgspec.json.decode(payload)["data"]
    return topic, data


def test_every_function_that_spells_a_topic_has_its_row() -> None:
    documented = {row["function"]: row["topic"] for row in the_table("The grammar").rows}
    spelled = {}
    for name, function in vars(Topics).items():
        if name.startswith("_") or name in NOT_ONE_TOPIC or not callable(function):
            continue
        parameters = [one for one in get_type_hints(function) if one != "return"]
        spelled[name] = function(Topics(), *(ARGUMENTS[one] for one in parameters))
    assert documented == spelled


def test_what_is_retained_is_what_the_grammar_says() -> None:
    grammar = patchbay.topics.__doc__ or ""
    for row in the_table("The grammar").rows:
        if row["function"] == "batch":  # one of the events
            continue
        (said,) = re.findall(
            rf"^ *{re.escape(row['topic'])}  +(\S.*)$", grammar, flags=re.MULTILINE
        )
        assert row["retained"] == ("yes" if "Retained" in said else "no"), row["topic"]


def test_everything_is_quality_of_service_1() -> None:
    rows = [*the_table("The grammar").rows, *the_table("The locker's topics").rows]
    assert {row["QoS"] for row in rows} == {"1"}


def test_every_topic_of_the_locker_is_one_of_the_grammar() -> None:
    grammar = {
        re.sub("<[a-z]+>", "+", row["topic"]): row["retained"]
        for row in the_table("The grammar").rows
        if row["function"] != "batch"
    }
    for row in the_table("The locker's topics").rows:
        (retained,) = [said for pattern, said in grammar.items() if matches(pattern, row["topic"])]
        assert row["retained"] == retained, row["topic"]


async def test_the_locker_s_events_are_those_that_it_publishes() -> None:
    documented = {
        row["topic"].rpartition("/")[2]: row["message"]
        for row in the_table("The locker's topics").rows
        if "/event/" in row["topic"]
    }
    names = get_args(get_type_hints(Publish)["name"])
    topic, _ = await refused()
    assert documented == {
        patchbay_locker.messages.REPORT: "Report",
        topic.rpartition("/")[2]: "rejected",
        **{name: name.capitalize() for name in names},
    }


async def test_the_locker_s_commands_are_those_that_it_serves() -> None:
    _, data = await refused()
    served = data["message"].partition("there are ")[2].split(", ")
    commands = {row["name"]: row["message"] for row in the_table("The locker's commands").rows}
    assert list(commands) == served
    assert {
        name: message for name, message in commands.items() if message != name.capitalize()
    } == dict.fromkeys(("state", "boards", "rentals", "accesses"), "Ask")


async def test_rejected_has_the_fields_that_the_page_says() -> None:
    _, data = await refused()
    assert the_table("rejected").column("field") == list(data)


def test_every_message_type_has_its_section_and_there_is_no_other() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)$", text, flags=re.MULTILINE)
    assert sorted(headings) == sorted([*MESSAGES, "rejected"])


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_fields_of_a_message_are_those_of_its_type(name: str) -> None:
    fields = msgspec.structs.fields(MESSAGES[name])
    if not fields:
        assert f"### {name}\n\nNo fields.\n" in (ROOT / PAGE).read_text(encoding="utf-8")
        return
    table = the_table(name)
    assert list(table.rows[0]) == FIELD_COLUMNS
    documented = [(row["field"], row["type"], row["default"]) for row in table.rows]
    assert documented == [(field.name, kind(field), default(field)) for field in fields]


@pytest.mark.parametrize("name", ["The locker's topics", "The locker's commands"])
def test_every_message_that_is_named_is_there(name: str) -> None:
    named = {row["message"] for row in the_table(name).rows}
    assert named - set(MESSAGES) <= {"rejected", "online or offline"}
