"""``broker/TOPICS.md`` says what the code does: every message, and every field."""

from __future__ import annotations

import re
from importlib import import_module

import msgspec
import pytest
from msgspec import Struct

from tests.documented import SERVICES, every_service, refused
from tests.pages import default, kind
from tests.topics_page import commands_of, sections, the_table, topics_of

FIELD_COLUMNS = ["field", "type", "default", "meaning"]
SHARED = "Messages of every service"
NEVER_SENT = {"Faulty"}
"""Stands in the place of an invalid event, within a domain."""


def messages_of(module: str) -> dict[str, type[Struct]]:
    return {
        name: one
        for name, one in vars(import_module(module)).items()
        if isinstance(one, type)
        and issubclass(one, Struct)
        and one.__module__ == module
        and name not in NEVER_SENT
    }


MESSAGES = {
    SHARED: messages_of("patchbay.messages"),
    **{
        f"Messages of the {service}": messages_of(f"patchbay_{service}.messages")
        for service in SERVICES
    },
}


def test_every_message_type_has_its_section_and_there_is_no_other() -> None:
    documented = {
        name: sorted(re.findall(r"^### (\w+)$", body, flags=re.MULTILINE))
        for name, body in sections().items()
        if re.search(r"^### ", body, flags=re.MULTILINE)
    }
    types = {section: sorted(of_this) for section, of_this in MESSAGES.items()}
    types[SHARED] = sorted([*types[SHARED], "rejected"])
    assert documented == types


@pytest.mark.parametrize(
    ("section", "name"),
    [(section, name) for section, types in sorted(MESSAGES.items()) for name in sorted(types)],
)
def test_the_fields_of_a_message_are_those_of_its_type(section: str, name: str) -> None:
    fields = msgspec.structs.fields(MESSAGES[section][name])
    if not fields:
        assert f"### {name}\n\nNo fields.\n" in sections()[section]
        return
    table = the_table(section, name)
    assert list(table.rows[0]) == FIELD_COLUMNS
    documented = [(row["field"], row["type"], row["default"]) for row in table.rows]
    assert documented == [(one.encode_name, kind(one), default(one)) for one in fields]


@every_service
def test_every_message_that_is_named_is_there(service: str) -> None:
    rows = [*topics_of(service).rows, *commands_of(service).rows]
    types = MESSAGES[f"Messages of the {service}"]
    shared = {"rejected", "online or offline", "Cancel"}
    assert {row["message"] for row in rows} - set(types) <= shared


@every_service
async def test_rejected_has_the_fields_that_the_page_says(service: str) -> None:
    _, data = await refused(service)
    assert the_table(SHARED, "rejected").column("field") == list(data)
