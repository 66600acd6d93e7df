"""What the code of each service says of its topics: ``broker/TOPICS.md`` has to say the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

import patchbay.log
import patchbay_allocator.desk
import patchbay_bartender.desk
import patchbay_lantern.domain
import patchbay_locker.desk
import patchbay_mesh.desk
from patchbay.bus import Message
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.topics import Topics
from patchbay_allocator.edge.combinators import CombinatorsEdge
from patchbay_allocator.messages import CHANGED, FINISHED, QUEUE, REQUESTED
from patchbay_bartender.domain import DURABLE
from patchbay_bartender.edge.pumps import PumpsEdge
from patchbay_bartender.settings import BartenderSettings
from patchbay_lantern.messages import ALL, COMMANDED
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.store import LanternStore
from patchbay_locker.board import Publish
from patchbay_locker.messages import REPORT
from patchbay_locker.settings import LockerSettings
from patchbay_mesh.edge.uart import UartEdge
from patchbay_mesh.messages import DATA, JOINED, LEFT, LOG, MESSAGE, NETWORK, NODES
from patchbay_mesh.recent import Recent
from patchbay_mesh.settings import MeshSettings


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

    def read_notes(self, _prefix: str, _read: object) -> dict[str, Any]:
        return {}


def the_locker_s_desk(ear: Any) -> None:
    nobody: Any = None  # no command comes that would ask them
    patchbay_locker.desk.Desk(
        ear, nobody, LockerSettings(), nobody, nobody, mark=nobody, clear=nobody
    )


def the_allocator_s_desk(ear: Any) -> None:
    nobody: Any = None
    patchbay_allocator.desk.Desk(
        ear, nobody, [], nobody, nobody, nobody, nobody, nobody, group=None
    )


def the_lantern_s_domain(ear: Any) -> None:
    nobody: Any = LanternStore(Store(StoreSettings(), "mongodb://127.0.0.1:1"), 1)
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
    patchbay_mesh.desk.Desk(ear, nobody, Recent(1), nobody, MeshSettings(), nobody)


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
