"""The sender over a real broker: the window, the batches, the starting again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.messages import Ack, encode
from patchbay.outbox import Patience
from patchbay.outbox import patience as patience_module
from patchbay.outbox import sender as sender_module
from patchbay.testing import MakeBus, Part, until
from tests.sender_ends import ALONE_TOPIC, BATCH_TOPIC, INSTANCE, Domain, Edge


@pytest.fixture
async def edge(make_bus: MakeBus, tmp_path: Path) -> AsyncIterator[Edge]:
    edge = Edge(make_bus(INSTANCE), tmp_path / "outbox.sqlite")
    yield edge
    await edge.sender.stop()
    edge.journal.close()


@pytest.fixture
async def domain(make_bus: MakeBus) -> Domain:
    """Subscribed before anything is sent, unless the test starts it later."""
    return Domain(make_bus("tiny-domain-1"))


async def test_few_events_travel_alone_each_on_its_own_topic(edge: Edge, domain: Domain) -> None:
    await domain.start()
    await edge.start()
    edge.take(8, b'{"n": 1}')
    await until(lambda: domain.numbers == list(range(1, 9)))
    assert domain.sizes == [(ALONE_TOPIC, 1)] * 8
    assert json.loads(domain.messages[0].payload) == {
        "specversion": "1.0",
        "id": "k1",
        "source": INSTANCE,
        "type": "patchbay.tiny.said",
        "subject": "D1",
        "time": "t",
        "sequence": 1,
        "epoch": edge.journal.epoch,
        "data": {"n": 1},
    }
    assert edge.sender.waiting == 8


async def test_many_events_travel_in_batches_of_at_most_fifty(edge: Edge, domain: Domain) -> None:
    await domain.start()
    await edge.start()
    edge.take(115)
    await until(lambda: domain.numbers == list(range(1, 116)))
    assert domain.sizes == [(BATCH_TOPIC, 50), (BATCH_TOPIC, 50), (BATCH_TOPIC, 15)]


async def test_a_batch_is_never_larger_than_half_a_packet(edge: Edge, domain: Domain) -> None:
    await domain.start()
    await edge.start()
    edge.take(40, b'"%s"' % (b"x" * 20_000))
    await until(lambda: domain.numbers == list(range(1, 41)))
    assert max(count for _, count in domain.sizes) > 1
    assert max(len(one.payload) for one in domain.messages) <= sender_module.BATCH_BYTES


async def test_while_no_puback_comes_events_wait_on_disk_and_become_batches(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    for _ in range(sender_module.MESSAGES + 30):  # in one turn: no PUBACK can come
        edge.take()
    assert edge.sender.sent == sender_module.MESSAGES
    await until(lambda: len(domain.numbers) == sender_module.MESSAGES + 30)
    assert domain.numbers == list(range(1, sender_module.MESSAGES + 31))
    assert max(count for _, count in domain.sizes) > 1


async def test_what_waits_in_memory_is_bounded_and_the_rest_is_read_from_the_file(
    edge: Edge, domain: Domain
) -> None:
    for _ in range(sender_module.AHEAD + 100):
        edge.take()
    assert len(edge.sender._fresh) <= sender_module.AHEAD
    await domain.start()
    await edge.start()
    await until(lambda: len(domain.numbers) == sender_module.AHEAD + 100)
    assert domain.numbers == list(range(1, sender_module.AHEAD + 101))


async def test_no_more_than_the_window_is_under_way(edge: Edge, domain: Domain) -> None:
    await domain.start()
    await edge.start()
    for _ in range(13):
        edge.take(100)
    assert edge.sender.sent == sender_module.WINDOW
    await until(lambda: domain.numbers == list(range(1, 1001)))
    await domain.acknowledge(edge.journal.epoch, 10)
    await until(lambda: edge.sender.sent == 1010)
    await domain.acknowledge(edge.journal.epoch, 900)
    await until(lambda: domain.numbers == list(range(1, 1301)))
    assert edge.sender.waiting == 400
    assert edge.told == 2


async def test_what_was_taken_in_without_a_broker_is_sent_at_the_connack(
    edge: Edge, domain: Domain
) -> None:
    edge.take(3)
    edge.take(2)
    await domain.start()
    await edge.start()
    await until(lambda: domain.numbers == [1, 2, 3, 4, 5])


async def test_a_nak_makes_it_start_again_behind_what_is_acknowledged(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    edge.take(20)
    await until(lambda: domain.numbers == list(range(1, 21)))
    await domain.acknowledge(edge.journal.epoch, 15, nak=True)
    await until(lambda: domain.numbers[20:] == list(range(16, 21)))
    assert edge.sender.acked == 15


async def test_of_the_many_naks_that_one_gap_makes_the_first_is_obeyed(
    edge: Edge, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "NAK_PAUSE_S", 3600.0)
    await domain.start()
    await edge.start()
    edge.take(5)
    await until(lambda: domain.numbers == [1, 2, 3, 4, 5])
    for _ in range(3):
        await domain.acknowledge(edge.journal.epoch, 3, nak=True)
    await domain.acknowledge(edge.journal.epoch, 4, nak=True)
    await until(lambda: edge.sender.acked == 4)
    edge.take()
    await until(lambda: domain.numbers[-1] == 6)
    assert domain.numbers == [1, 2, 3, 4, 5, 4, 5, 5, 6]


async def test_after_a_killed_broker_all_that_is_not_acknowledged_is_sent_again(
    edge: Edge, domain: Domain, mosquitto: Part
) -> None:
    await domain.start()
    await edge.start()
    edge.take(12)
    await until(lambda: domain.numbers == list(range(1, 13)))
    await domain.acknowledge(edge.journal.epoch, 9)
    await until(lambda: edge.sender.acked == 9)
    mosquitto.kill()
    await until(lambda: not edge.bus.connected)
    edge.take(2)
    mosquitto.start()
    await until(lambda: set(domain.numbers[12:]) == {10, 11, 12, 13, 14})


async def test_while_nobody_has_subscribed_it_tries_again(edge: Edge, domain: Domain) -> None:
    await edge.start()
    edge.take(3)
    await until(lambda: edge.sender._pausing is not None)
    await domain.start()
    await until(lambda: set(domain.numbers) == {1, 2, 3})
    await domain.acknowledge(edge.journal.epoch, 3)
    await until(lambda: edge.sender.waiting == 0)


async def test_without_progress_it_starts_again(
    edge: Edge, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience_module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(sender_module, "LOOK_S", 0.05)
    edge.sender._patience = Patience()
    await domain.start()
    await edge.start()
    edge.take(2)
    await until(lambda: domain.numbers[:6] == [1, 2, 1, 2, 1, 2])
    await domain.acknowledge(edge.journal.epoch, 2)
    await until(lambda: edge.sender.waiting == 0)


NONSENSE = [
    b"",
    b"{",
    b"[]",
    b'{"epoch": 1, "upto": 2}',
    b"\xff",
    b'{"epoch": "\xff", "upto": 2}',
    b'{"epoch": "e", "upto": 2, "more": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
]


async def test_a_domain_that_takes_long_for_each_window_is_sent_a_window_again_once(
    edge: Edge, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(edge.sender, "_loop_time", lambda: now)
    monkeypatch.setattr(sender_module, "LOOK_S", 0.001)
    looks = 0
    is_over = Patience.is_over

    def look(patience: Patience, at: float) -> bool:
        nonlocal looks
        looks += 1
        return is_over(patience, at)

    monkeypatch.setattr(Patience, "is_over", look)
    await domain.start()
    await edge.start()
    seen = 0

    def arrived() -> bool:
        return edge.journal.seq in domain.numbers

    def looked_again() -> bool:
        return looks > seen + 1

    for window in range(1, 6):
        edge.take(2)
        await until(arrived)
        now += 6.5
        seen = looks
        await until(looked_again)
        await domain.acknowledge(edge.journal.epoch, 2 * window)
        await until(lambda: edge.sender.waiting == 0)
    assert domain.numbers == [1, 2, 1, 2, *range(3, 11)]


async def test_acknowledgements_of_another_epoch_and_nonsense_are_ignored(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    edge.take(3)
    await until(lambda: domain.numbers == [1, 2, 3])
    await domain.acknowledge("another", 3)
    await domain.acknowledge("another", 0, nak=True)
    for payload in NONSENSE:
        await domain.bus.publish(domain.bus.topics.ack(INSTANCE), payload)
    await domain.acknowledge(edge.journal.epoch, 1)
    await until(lambda: edge.sender.acked == 1)
    assert (edge.told, edge.bus.reconnects, domain.numbers) == (1, 0, [1, 2, 3])


async def test_an_acknowledgement_of_more_than_there_is_is_ignored(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    edge.take(3)
    await domain.acknowledge(edge.journal.epoch, 4)
    await domain.acknowledge(edge.journal.epoch, 2)
    await until(lambda: edge.sender.acked == 2)
    assert (edge.told, edge.sender.waiting) == (1, 1)


async def test_an_old_acknowledgement_changes_nothing(edge: Edge, domain: Domain) -> None:
    await domain.start()
    await edge.start()
    edge.take(3)
    for upto in (2, 1, 2, 3):
        await domain.acknowledge(edge.journal.epoch, upto)
    await until(lambda: edge.sender.acked == 3)
    assert edge.told == 2
    assert domain.numbers == [1, 2, 3]


async def test_a_domain_that_never_knew_it_gets_the_same_epoch_from_the_start(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    epoch = edge.journal.epoch
    edge.take(2)
    await until(lambda: domain.numbers == [1, 2])
    await domain.acknowledge(epoch, 0, nak=True)
    await until(lambda: domain.numbers == [1, 2, 1, 2])
    assert edge.journal.epoch == epoch


async def forgotten_at(edge: Edge, domain: Domain, acked: int) -> str:
    """The domain has acknowledged so many of ten, and then knows nothing: its store is new."""
    await domain.start()
    await edge.start()
    edge.take(10)
    await until(lambda: domain.numbers == list(range(1, 11)))
    epoch = edge.journal.epoch
    await domain.acknowledge(epoch, acked)
    await until(lambda: edge.sender.acked == acked)
    await domain.acknowledge(epoch, 0, nak=True)
    return epoch


async def test_a_domain_that_has_forgotten_what_it_acknowledged_gets_a_new_epoch_from_1(
    edge: Edge, domain: Domain
) -> None:
    old = await forgotten_at(edge, domain, 7)
    await until(lambda: domain.numbers[10:] == [1, 2, 3])
    assert [event.id for event in domain.events[10:]] == ["k8", "k9", "k10"]
    new = edge.journal.epoch
    assert {event.epoch for event in domain.events[10:]} == {new}
    assert new != old
    await domain.acknowledge(old, 9)
    await domain.acknowledge(new, 2)
    await until(lambda: edge.sender.acked == 9)
    edge.take()
    await until(lambda: domain.numbers[10:] == [1, 2, 3, 4])
    assert edge.sender.waiting == 2


async def test_an_acknowledgement_of_more_than_was_sent_changes_nothing(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    edge.take(2)
    await until(lambda: domain.numbers == [1, 2])
    epoch = edge.journal.epoch
    for upto in (3, 10**9, 2**53):
        await domain.acknowledge(epoch, upto)
    await domain.bus.publish(domain.bus.topics.ack(INSTANCE), b'{"epoch":"%s","upto":-1}')
    await domain.bus.publish(domain.bus.topics.ack(INSTANCE), b'{"epoch":"e","upto":1e99}')
    await domain.acknowledge(epoch, 1)
    await until(lambda: edge.sender.acked == 1)
    assert edge.journal.epoch == epoch


async def test_an_older_file_begins_an_epoch_and_nothing_is_taken_for_what_the_domain_knows(
    edge: Edge, domain: Domain, make_bus: MakeBus, tmp_path: Path
) -> None:
    edge.take(3)
    epoch = edge.journal.epoch
    edge.journal.close()
    copy = (tmp_path / "outbox.sqlite").read_bytes()
    (tmp_path / "older.sqlite").write_bytes(copy)
    older = Edge(make_bus(INSTANCE), tmp_path / "older.sqlite")
    await domain.start()
    await older.start()
    older.take(1)
    await until(lambda: domain.numbers == [1, 2, 3])
    await domain.acknowledge(epoch, 7)  # the file has lost four that the domain has
    await until(lambda: domain.numbers == [1, 2, 3, 1])
    assert [one.epoch for one in domain.events] == [epoch] * 3 + [older.journal.epoch]
    await domain.acknowledge(older.journal.epoch, 1)
    await until(lambda: older.sender.waiting == 0)
    await older.sender.stop()
    older.journal.close()


async def lacking(edge: Edge, domain: Domain, *seqs: int) -> str:
    """Ten events are in the file, but for these. Returns their epoch, which is not the present."""
    edge.take(10)
    epoch = edge.journal.epoch
    edge.journal._db.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq in seqs])
    edge.journal.begin_epoch(11)
    await domain.start()
    await edge.start()
    return epoch


async def test_of_what_a_damaged_file_has_lost_the_domain_may_have_all(
    edge: Edge, domain: Domain
) -> None:
    epoch = await lacking(edge, domain, 1, 2, 5, 10)
    await until(lambda: len(domain.events) >= 6)
    await domain.acknowledge(epoch, 10, nak=True)
    await until(lambda: edge.sender.acked == 10)
    edge.take()
    await until(lambda: domain.events[-1].epoch == edge.journal.epoch)
    assert domain.numbers[-1] == 1


async def test_a_domain_that_lacks_what_the_file_has_lost_gets_the_rest_as_a_new_epoch(
    edge: Edge, domain: Domain
) -> None:
    epoch = await lacking(edge, domain, 5, 6)
    await until(lambda: len(domain.events) >= 8)
    await domain.acknowledge(epoch, 4, nak=True)
    await until(lambda: domain.numbers[-4:] == [1, 2, 3, 4])
    assert [one.id for one in domain.events[-4:]] == ["k7", "k8", "k9", "k10"]
    assert domain.events[-1].epoch not in (epoch, edge.journal.epoch)
    await domain.acknowledge(domain.events[-1].epoch, 4)
    await until(lambda: edge.sender.acked == 10)


async def test_a_domain_whose_store_is_an_older_one_gets_a_new_epoch_when_it_asks_twice(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    epoch = edge.journal.epoch
    edge.take(10)
    await until(lambda: len(domain.events) == 10)
    await domain.acknowledge(epoch, 8)
    await until(lambda: edge.sender.acked == 8)
    await domain.acknowledge(epoch, 3, nak=True)
    await until(lambda: domain.numbers[10:] == [9, 10])
    assert edge.journal.epoch == epoch
    await asyncio.sleep(sender_module.NAK_PAUSE_S)
    await domain.acknowledge(epoch, 3, nak=True)
    await until(lambda: domain.numbers[12:] == [1, 2])
    assert edge.journal.epoch != epoch
    assert [one.id for one in domain.events[12:]] == ["k9", "k10"]


async def test_an_epoch_that_is_over_for_the_domain_goes_on_under_another_name(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    epoch = edge.journal.epoch
    edge.take(4)
    await until(lambda: len(domain.events) == 4)
    await domain.bus.publish(
        domain.bus.topics.ack(INSTANCE), encode(Ack(epoch, 2, nak=True, over=True))
    )
    await until(lambda: domain.numbers[4:] == [1, 2])
    assert [one.id for one in domain.events[4:]] == ["k3", "k4"]
    assert edge.journal.epoch != epoch


async def test_when_nothing_is_left_a_new_epoch_begins_with_the_next_event(
    edge: Edge, domain: Domain
) -> None:
    old = await forgotten_at(edge, domain, 10)
    await until(lambda: edge.journal.epoch != old)
    edge.take()
    await until(lambda: domain.numbers[10:] == [1])
    await domain.acknowledge(edge.journal.epoch, 1)
    await until(lambda: edge.sender.waiting == 0)


async def test_a_new_epoch_that_cannot_be_written_waits_until_it_can(
    edge: Edge, domain: Domain
) -> None:
    edge_db = edge.journal._db
    await domain.start()
    await edge.start()
    edge.take(3)
    epoch = edge.journal.epoch
    await domain.acknowledge(epoch, 1)
    await until(lambda: edge.sender.acked == 1)
    edge_db.execute("PRAGMA query_only=ON")
    await domain.acknowledge(epoch, 0, nak=True)
    await domain.acknowledge(epoch, 2)
    await until(lambda: edge.sender.acked == 2)
    assert (edge.journal.epoch, edge.bus.reconnects) == (epoch, 0)
    edge_db.execute("PRAGMA query_only=OFF")
    await domain.acknowledge(epoch, 0, nak=True)
    await until(lambda: edge.journal.epoch != epoch)
    await until(lambda: domain.events[-1].id == "k3" and domain.numbers[-1] == 1)


async def test_an_event_too_large_for_the_broker_is_set_aside_and_the_sequence_goes_on(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    large = b'"%s"' % (b"x" * 300_000)
    edge.take()
    edge.take(1, large)
    edge.take()
    await until(lambda: domain.numbers == [1, 2, 3])
    assert bytes(domain.events[1].data) == b"null"
    await until(lambda: len(domain.letters) == 1)
    letter = json.loads(domain.letters[0])
    assert (letter["topic"], letter["size"]) == (ALONE_TOPIC, len(large))


async def test_an_event_too_large_among_many_does_not_hold_up_the_others(
    edge: Edge, domain: Domain
) -> None:
    edge.take(5)
    edge.take(1, b'"%s"' % (b"x" * 300_000))
    edge.take(20)
    await domain.start()
    await edge.start()
    await until(lambda: domain.numbers == list(range(1, 27)))
    assert [event.sequence for event in domain.events if bytes(event.data) == b"null"] == [6]


async def test_an_event_that_is_too_large_without_its_body_is_set_aside_too(
    edge: Edge, domain: Domain
) -> None:
    await domain.start()
    await edge.start()
    edge.take(1, b"{}", "D" * 300_000)
    edge.take()
    await until(lambda: domain.numbers == [1, 2])
    assert bytes(domain.events[0].data) == b"null"
    assert edge.bus.reconnects == 0
