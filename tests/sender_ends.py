"""Both ends of a sender: an edge with a journal, and a domain that acknowledges when told to."""

from __future__ import annotations

from pathlib import Path

from patchbay.bus import Bus, Message
from patchbay.messages import Ack, Event, decode_events, encode
from patchbay.outbox import Journal, Row, Sender

SERVICE = "tiny"
INSTANCE = "tiny-edge-1"
ALONE_TOPIC = "patchbay/tiny/d1/event/said"
BATCH_TOPIC = f"patchbay/tiny/{INSTANCE}/event/batch"


class Edge:
    """A journal and its sender, on a bus that is not started."""

    def __init__(self, bus: Bus, path: Path) -> None:
        self.bus = bus
        self.journal = Journal(path)
        self.told = 0
        self.sender = Sender(self.journal, bus, SERVICE, self._acknowledged)

    def _acknowledged(self) -> None:
        self.told += 1

    def take(self, count: int = 1, body: bytes = b"{}", subject: str = "D1") -> None:
        """Commit so many events, as one turn, and hand them to the sender."""
        first = self.journal.seq + 1
        rows = [
            Row(seq, f"k{seq}", ALONE_TOPIC, "patchbay.tiny.said", subject, "t", body)
            for seq in range(first, first + count)
        ]
        self.journal.commit(rows, (), self.sender.acked)
        self.sender.committed(rows)

    async def start(self) -> None:
        self.sender.start()
        self.bus.start()
        await self.bus.wait_connected(5)


class Domain:
    """Hears all that the edge says, and acknowledges what the test wants."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.messages: list[Message] = []
        self.events: list[Event] = []
        self.letters: list[bytes] = []
        bus.listen("patchbay/tiny/+/event/+", self._hear)
        bus.listen("patchbay/dead/tiny", self._bury)

    def _hear(self, message: Message) -> None:
        message.ack()
        self.messages.append(message)
        self.events += decode_events(message.payload)

    def _bury(self, message: Message) -> None:
        message.ack()
        self.letters.append(message.payload)

    @property
    def numbers(self) -> list[int]:
        return [event.sequence for event in self.events]

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """Of each message its topic and how many events it had."""
        return [(one.topic, len(decode_events(one.payload))) for one in self.messages]

    async def start(self) -> None:
        self.bus.start()
        await self.bus.wait_connected(5)

    async def acknowledge(self, epoch: str, upto: int, nak: bool = False) -> None:
        topic = self.bus.topics.ack(INSTANCE)
        await self.bus.publish(topic, encode(Ack(epoch, upto, nak)))
