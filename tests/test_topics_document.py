"""``broker/TOPICS.md`` says what the code does: every topic, command and right."""

from __future__ import annotations

import re
from typing import get_type_hints

import patchbay.topics
from patchbay.services import discover
from patchbay.topics import Topics, matches
from tests.documented import SERVICES, Ear, every_service, refusal, refused
from tests.topics_page import commands_of, sections, the_table, topics_of

ARGUMENTS = {
    "service": "<service>",
    "device": "<device>",
    "name": "<name>",
    "instance": "<instance>",
    "client": "<client>",
}
NOT_ONE_TOPIC = {"address", "everything", "is_reply", "of_unit"}


def test_every_service_that_is_installed_is_held_against_the_page() -> None:
    assert sorted(SERVICES) == sorted(discover())


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


def test_everything_is_quality_of_service_1_but_what_is_ephemeral() -> None:
    assert {row["QoS"] for row in the_table("The grammar").rows} == {"1"}
    for service, says in SERVICES.items():
        for row in topics_of(service).rows:
            ephemeral = row["topic"].rpartition("/")[2] in says.ephemeral
            assert row["QoS"] == ("0" if ephemeral else "1"), row["topic"]


@every_service
def test_every_topic_of_a_service_is_one_of_the_grammar(service: str) -> None:
    grammar = {
        re.sub("<[a-z]+>", "+", row["topic"]): row["retained"]
        for row in the_table("The grammar").rows
        if row["function"] != "batch"
    }
    for row in topics_of(service).rows:
        assert row["topic"].startswith(f"patchbay/{service}/")
        (retained,) = [said for pattern, said in grammar.items() if matches(pattern, row["topic"])]
        assert row["retained"] == retained, row["topic"]


def named(service: str, kind_of_topic: str) -> list[tuple[str, str]]:
    """The names that the topics of this kind end in, each with its message."""
    return sorted(
        (row["topic"].rpartition("/")[2], row["message"])
        for row in topics_of(service).rows
        if f"/{kind_of_topic}/" in row["topic"]
    )


@every_service
async def test_the_events_of_a_service_are_those_that_it_publishes(service: str) -> None:
    says = SERVICES[service]
    topic, _ = await refused(service)
    refusing = 2 if says.commanded_device else 1
    assert named(service, "event") == sorted(
        [
            *[(topic.rpartition("/")[2], "rejected")] * refusing,
            *((name, says.prefix + name.capitalize()) for name in says.durable),
            *((name, name.capitalize()) for name in says.others),
        ]
    )
    durable = [row["topic"] for row in topics_of(service).rows if "Durable" in row["when"]]
    assert [topic.rpartition("/")[2] for topic in durable] == list(says.durable)


@every_service
async def test_the_commands_to_an_edge_are_those_that_it_listens_to(service: str) -> None:
    ear = Ear()
    says = SERVICES[service]
    if says.commanded is not None:
        says.commanded(ear)
    heard = [address for one in ear.patterns if (address := ear.topics.address(one)) is not None]
    commands = [address.name for address in heard if address.kind == "cmd"]
    if says.commanded_device:
        _, data = await refusal(ear, service, says.commanded_device)
        commands += data["message"].partition("there are ")[2].split(", ")
    assert named(service, "cmd") == sorted((name, name.capitalize()) for name in commands)


@every_service
async def test_the_commands_of_a_service_are_those_that_it_serves(service: str) -> None:
    _, data = await refused(service)
    served = data["message"].partition("there are ")[2].split(", ")
    commands = {row["name"]: row["message"] for row in commands_of(service).rows}
    assert list(commands) == served
    bodies = SERVICES[service].bodies
    assert commands == {name: bodies.get(name, name.capitalize()) for name in served}


@every_service
async def test_operators_may_give_the_commands_that_are_served(service: str) -> None:
    _, data = await refused(service)
    served = data["message"].partition("there are ")[2].split(", ")
    assert discover()[service].commands in ((), tuple(sorted(served)))


def roles_in(cell: str, service: str) -> set[str]:
    """The units that a cell of the page names: ``locker.edge`` is ``edge``."""
    return set(re.findall(rf"\b{service}\.([a-z-]+)", cell))


def pattern_of(cell: str) -> str:
    """The filter, below the root, of a topic on the page."""
    return re.sub(r"[a-z-]*<[a-z]+>[a-z-]*", "+", cell.strip("`").partition("/")[2])


@every_service
def test_the_rights_of_a_service_are_what_the_page_says(service: str) -> None:
    """Complete, and no wider: the broker's rules are made of them."""
    rights = discover()[service].rights
    rows = [
        (pattern_of(row["topic"]), row["published by"], row["read by"])
        for row in topics_of(service).rows
    ]
    for role, right in rights.items():
        batches = {f"{service}/<instance>/event/batch"} if role != "domain" else set()
        published = {one for one, by, _ in rows if role in roles_in(by, service)}
        if re.search(
            rf"published\sby {service}\.{role}\b", sections()[f"The {service}'s commands"]
        ):
            published |= {one for one in right.publish if "/cmd/" in one}  # to its own domain
        said = {one.replace("<instance>", "+") for one in set(right.publish) - batches}
        assert said == published, role
        read = {one for one, _, by in rows if role in roles_in(by, service)}
        asked = {f"{service}/+/event/batch", f"{service}/+/cmd/+"}
        asked.add(f"{service}/{SERVICES[service].device}/cmd/+")
        asked.add(f"{service}/{SERVICES[service].commanded_device}/cmd/+")
        assert set(right.subscribe) - asked <= read, role
        for one in read:
            assert any(matches(have, one.replace("+", "x")) for have in right.subscribe), one
