"""An event with an invalid envelope becomes a dead letter, and holds up no other."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from patchbay.forms import BATCH_MSGPACK
from patchbay.messages import EVENT_MSGPACK, Ack, batch
from patchbay.store import Store
from patchbay.testing import MakeBus, until
from tests.inbox_ends import ALONE, BATCH, EDGE, Domain, Edge, event

CONTROL = chr(1) * 1_000


@pytest.fixture
async def domain(make_bus: MakeBus, store: Store) -> AsyncIterator[Domain]:
    domain = Domain(make_bus("tiny-domain-1", durable=True), store)
    await domain.start()
    yield domain
    await domain.inbox.stop()


@pytest.fixture
async def edge(make_bus: MakeBus) -> Edge:
    edge = Edge(make_bus(EDGE))
    edge.bus.start()
    await edge.bus.wait_connected(5)
    return edge


def envelope(sequence: int, **fields: Any) -> dict[str, Any]:
    """An event of our edge, with some fields replaced."""
    return {**json.loads(event(sequence)), **fields}


WITHOUT_A_PLACE: dict[str, dict[str, Any]] = {
    "source with wildcards": {"source": "a/+/#"},
    "source with NUL": {"source": "a\0b"},
    "empty source": {"source": ""},
    "endless source": {"source": "x" * 70_000},
    "source that is an operator": {"source": "$set"},
    "epoch of control characters": {"epoch": CONTROL},
    "endless epoch": {"epoch": "e" * 70_000},
    "no epoch": {"epoch": ""},
    "sequence below 0": {"sequence": -1},
    "sequence above 2^53": {"sequence": 2**53 + 1},
    "sequence above 2^64": {"sequence": 2**70},
    "sequence that is a text": {"sequence": "2"},
    "sequence that is a fraction": {"sequence": 1.5},
}
"""Nobody can be told that these were handled."""

WITH_A_PLACE: dict[str, dict[str, Any]] = {
    "endless id": {"id": "x" * 70_000},
    "empty id": {"id": ""},
    "id with NUL": {"id": "a\0b"},
    "id that is a number": {"id": 7},
    "type of control characters": {"type": CONTROL},
    "endless subject": {"subject": "s" * 70_000},
    "endless time": {"time": "2" * 70_000},
    "no id": {"id": None},
    "no time": {"time": None},
    "another version": {"specversion": "2.0"},
}
"""Their source goes on with the next one."""


@pytest.mark.parametrize("fields", WITHOUT_A_PLACE.values(), ids=WITHOUT_A_PLACE)
async def test_an_event_whose_source_cannot_be_told_is_a_dead_letter(
    domain: Domain, edge: Edge, fields: dict[str, Any]
) -> None:
    await edge.say(_raw(1, fields), event(1), event(2))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 2)])
    await until(lambda: len(edge.letters) == 1)
    assert domain.ids == ["e1:1", "e1:2"]


async def test_a_flood_of_what_no_edge_has_numbered_fills_no_store_and_delays_no_event(
    domain: Domain, edge: Edge, store: Store
) -> None:
    began = time.monotonic()
    for number in range(2_000):
        edge.bus.post(ALONE, b'{"no event": %d' % number)
    await edge.say(event(1))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 1)])
    stored = await store.count("dead", {})
    assert 0 < stored <= edge.bus.settings.dead_letters_per_s * (2 + time.monotonic() - began)


@pytest.mark.parametrize("fields", WITH_A_PLACE.values(), ids=WITH_A_PLACE)
async def test_an_invalid_event_is_a_dead_letter_and_counts_as_handled(
    domain: Domain, edge: Edge, fields: dict[str, Any]
) -> None:
    await edge.say(event(1), _raw(2, fields), event(3))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    await until(lambda: len(edge.letters) == 1)
    assert domain.ids == ["e1:1", "e1:3"]
    assert not any(ack.nak for ack in edge.acks)


@pytest.mark.parametrize("fields", WITH_A_PLACE.values(), ids=WITH_A_PLACE)
async def test_of_a_batch_only_the_invalid_event_is_a_dead_letter(
    domain: Domain, edge: Edge, fields: dict[str, Any]
) -> None:
    await edge.say(batch([event(1), _raw(2, fields), event(3)]), topic=BATCH)
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    await until(lambda: len(edge.letters) == 1)
    assert domain.ids == ["e1:1", "e1:3"]


async def test_of_a_messagepack_batch_only_the_invalid_event_is_a_dead_letter(
    domain: Domain, edge: Edge
) -> None:
    bodies = [msgpack.packb(envelope(n)) for n in (1, 2, 3)]
    bodies[1] = bodies[1].replace(b"e1:2", b"e1\xff2")  # the id is not UTF-8
    payload = b"\x93" + b"".join(bodies)
    edge.bus.post(BATCH, payload, content_type=BATCH_MSGPACK)
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    await until(lambda: len(edge.letters) == 1)
    assert domain.ids == ["e1:1", "e1:3"]


async def test_a_subject_that_is_not_utf_8_is_a_dead_letter(domain: Domain, edge: Edge) -> None:
    odd = event(2).replace(b"D1", b"\xff")
    await edge.say(batch([event(1), odd, event(3)]), topic=BATCH)
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    await until(lambda: len(edge.letters) == 1)
    assert (edge.letters[0]["topic"], edge.letters[0]["size"]) == (BATCH, len(odd))
    assert domain.ids == ["e1:1", "e1:3"]


DATA = {
    "text that is not UTF-8": b"\x82\xa4node\x05\xa6val\xff\xff\xff\x90",
    "an extension type": msgpack.packb(msgpack.ExtType(5, b"abc")),
    "keys that are no texts": msgpack.packb({b"k": 1, 2: 3}),
    "nested too deep": b"\x91" * 900 + b"\xc0",
    "a timestamp out of range": b"\xc7\x0c\xff" + b"\xff" * 12,
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
async def test_data_that_json_cannot_express_become_a_dead_letter(
    domain: Domain, edge: Edge, data: bytes
) -> None:
    """A handler that cannot read them raises, and the letter about them must not."""
    domain.poison = "e1:2"
    head = msgpack.packb({**envelope(2), "data": None})
    edge.bus.post(ALONE, event(1))
    odd = head.replace(b"\xa4data\xc0", b"\xa4data" + data)
    edge.bus.post(ALONE, odd, content_type=EVENT_MSGPACK)
    edge.bus.post(ALONE, event(3))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    await until(lambda: len(edge.letters) == 1)
    assert domain.ids == ["e1:1", "e1:3"]


def _raw(sequence: int, fields: dict[str, Any]) -> bytes:
    return json.dumps({**envelope(sequence), **fields}).encode()
