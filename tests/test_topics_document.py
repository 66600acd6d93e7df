"""``broker/TOPICS.md`` says what the code does: every topic, every message, every field."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec import Struct

import patchbay.log
import patchbay.messages
import patchbay.topics
import patchbay_allocator.desk
import patchbay_bartender.desk
import patchbay_lantern.domain
import patchbay_locker.desk
import patchbay_mesh.desk
from patchbay.bus import Message
from patchbay.services import discover
from patchbay.topics import Topics, matches
from patchbay_allocator.edge.combinators import CombinatorsEdge
from patchbay_allocator.messages import CHANGED, FINISHED, QUEUE, REQUESTED
from patchbay_bartender.domain import DURABLE
from patchbay_bartender.edge.pumps import PumpsEdge
from patchbay_bartender.settings import BartenderSettings
from patchbay_lantern.messages import ALL, COMMANDED
from patchbay_lantern.settings import LanternSettings
from patchbay_locker.board import Publish
from patchbay_locker.messages import REPORT
from patchbay_locker.settings import LockerSettings
from patchbay_mesh.edge.uart import UartEdge
from patchbay_mesh.messages import DATA, JOINED, LEFT, LOG, MESSAGE, NETWORK, NODES
from patchbay_mesh.recent import Recent
from patchbay_mesh.settings import MeshSettings
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
SHARED = "Messages of every service"


class Ear:
    """Hears what is subscribed to and listened to, and what `Commands` answers."""

    topics = Topics()
    client_id = "domain-test"

    def __init__(self) -> None:
        self.log = patchbay.log.get_logger("test")
        self.handle: Callable[[Message], Awaitable[None]] | None = None
        self.said: list[tuple[str, bytes]] = []
        self.patterns: list[str] = []

    def subscribe(self, _pattern: str, handler: Callable[[Message], Awaitable[None]]) -> None:
        self.handle = handler

    def divert(self, _topic: str, _handler: Callable[[Message], Awaitable[None]]) -> None:
        """What is urgent is one of the commands of `handle`, too."""

    def listen(self, pattern: str, _callback: Callable[[Message], None]) -> None:
        self.patterns.append(pattern)

    def keep(self, topic: str, payload: bytes) -> None:
        """Nobody asks what is kept."""

    def on_connect(self, _hook: Callable[[], Awaitable[None]]) -> None:
        """It never connects."""

    def post(self, topic: str, payload: bytes) -> None:
        self.said.append((topic, payload))


class EmptyOutbox:
    """Remembers nothing."""

    def notes(self, _prefix: str) -> list[tuple[str, bytes]]:
        return []


def the_locker_s_desk(ear: Any) -> None:
    nobody: Any = None  # no command comes that would ask them
    patchbay_locker.desk.Desk(ear, nobody, LockerSettings(), nobody)


def the_allocator_s_desk(ear: Any) -> None:
    nobody: Any = None
    patchbay_allocator.desk.Desk(
        ear, nobody, [], nobody, nobody, nobody, nobody, nobody, group=None
    )


def the_lantern_s_domain(ear: Any) -> None:
    nobody: Any = None
    patchbay_lantern.domain.LanternDomain(ear, nobody, LanternSettings())


def the_combinators_edge(ear: Any) -> None:
    outbox: Any = None
    CombinatorsEdge(ear, outbox)


def the_bartender_s_desk(ear: Any) -> None:
    nobody: Any = None
    patchbay_bartender.desk.Desk(ear, nobody, BartenderSettings(), nobody, nobody, nobody)


def the_pumps_edge(ear: Any) -> None:
    outbox: Any = EmptyOutbox()
    nobody: Any = None
    PumpsEdge(ear, outbox, nobody, BartenderSettings(), nobody)


def the_mesh_s_desk(ear: Any) -> None:
    nobody: Any = None
    patchbay_mesh.desk.Desk(ear, nobody, Recent(1), MeshSettings(), nobody)


def the_uart_edge(ear: Any) -> None:
    outbox: Any = None
    UartEdge(ear, outbox, MeshSettings())


@dataclass(frozen=True)
class Documented:
    """What the code of a service says that the page has to say too."""

    desk: Callable[[Any], None]
    """Makes what serves its commands."""
    device: str
    """One that commands are for."""
    durable: tuple[str, ...]
    """Events of its edges; they and the others are called as their messages are."""
    others: tuple[str, ...]
    """Events of its domain, and those of its edges that are not durable."""
    commanded: Callable[[Any], None] | None = None
    """Makes its edge that has commands from its domain, if there is one."""
    commanded_device: str = ""
    """The device whose commands that edge serves, if it answers them."""
    bodies: dict[str, str] = field(default_factory=dict)
    """Commands that are not called as their messages are."""
    prefix: str = ""
    """What the messages of durable events are called before their names."""
    ephemeral: tuple[str, ...] = ()
    """Events that are QoS 0."""


SERVICES = {
    "allocator": Documented(
        desk=the_allocator_s_desk,
        device=QUEUE,
        durable=(REQUESTED, FINISHED),
        others=(CHANGED,),
        commanded=the_combinators_edge,
        bodies={"mode": "SetMode"},
    ),
    "bartender": Documented(
        desk=the_bartender_s_desk,
        device="bar",
        durable=DURABLE,
        others=("progress", "started", "finished", "failed", "configured", "asked"),
        commanded=the_pumps_edge,
        bodies=dict.fromkeys(("state", "history"), "Ask"),
        prefix="Pumps",
        ephemeral=("progress",),
    ),
    "lantern": Documented(
        desk=the_lantern_s_domain,
        device=ALL,
        durable=(),
        others=(COMMANDED,),
        bodies={"state": "Ask"},
    ),
    "locker": Documented(
        desk=the_locker_s_desk,
        device="1953",
        durable=(REPORT,),
        others=get_args(get_type_hints(Publish)["name"]),
        bodies=dict.fromkeys(("state", "boards", "rentals", "accesses"), "Ask"),
    ),
    "mesh": Documented(
        desk=the_mesh_s_desk,
        device=NODES,
        durable=(DATA, MESSAGE, NETWORK),
        others=(JOINED, LEFT, LOG),
        commanded=the_uart_edge,
        commanded_device="root",
    ),
}
every_service = pytest.mark.parametrize("service", sorted(SERVICES))


def sections() -> dict[str, str]:
    """The text of the page by its headings of the second level."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {heading: body for heading, _, body in (part.partition("\n") for part in parts)}


def the_table(section: str, heading: str | None = None) -> Table:
    """The table below a heading of a section: two services may have messages of one name."""
    rest = iter(tables(PAGE))
    for name, body in sections().items():
        inside = list(islice(rest, len(re.findall(r"^\|-", body, flags=re.MULTILINE))))
        if name == section:
            (found,) = [table for table in inside if table.heading == (heading or section)]
            return found
    raise AssertionError(f"there is no section {section}")


def topics_of(service: str) -> Table:
    return the_table(f"The {service}'s topics")


def commands_of(service: str) -> Table:
    return the_table(f"The {service}'s commands")


def messages_of(module: str) -> dict[str, type[Struct]]:
    return {
        name: one
        for name, one in vars(import_module(module)).items()
        if isinstance(one, type) and issubclass(one, Struct) and one.__module__ == module
    }


MESSAGES = {
    SHARED: messages_of("patchbay.messages"),
    **{
        f"Messages of the {service}": messages_of(f"patchbay_{service}.messages")
        for service in SERVICES
    },
}


async def refused(service: str) -> tuple[str, dict[str, Any]]:
    """The topic and data of ``event/rejected`` after a command that there is not."""
    ear = Ear()
    SERVICES[service].desk(ear)
    return await refusal(ear, service, SERVICES[service].device)


async def refusal(ear: Ear, service: str, device: str) -> tuple[str, dict[str, Any]]:
    """What who serves this device's commands says to one that there is not."""
    assert ear.handle is not None
    topic = ear.topics.command(service, device, "nonsense")
    await ear.handle(Message(topic=topic, payload=b"{}"))
    ((topic, payload),) = ear.said
    data: dict[str, Any] = msgspec.json.decode(payload)["data"]
    return topic, data


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


@every_service
async def test_rejected_has_the_fields_that_the_page_says(service: str) -> None:
    _, data = await refused(service)
    assert the_table(SHARED, "rejected").column("field") == list(data)


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
    assert {row["message"] for row in rows} - set(types) <= {"rejected", "online or offline"}


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
