"""One connection of a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from patchbay.edge.repeats import Number
from patchbay.framing import WireError
from patchbay.net import Peer
from patchbay.outbox import OutboxFull
from patchbay.topics import device_id

if TYPE_CHECKING:
    from patchbay.edge.device_edge import DeviceEdge

F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)


class Decoder(Protocol[F_co]):
    """Bytes in, frames out."""

    def feed(self, data: bytes) -> Iterable[F_co]:
        """The frames that are complete with these bytes. Raises WireError."""


class DeviceSession(ABC, Generic[F]):
    """Subclass it: set ``decoder``, and say in `on_frame` what a frame means."""

    decoder: ClassVar[Callable[[], Decoder[Any]]]

    def __init__(self, edge: DeviceEdge, peer: Peer) -> None:
        self.edge = edge
        self.peer = peer
        self.devices: dict[str, str] = {}
        """Devices that were identified here: id in topics -> the device's own id."""
        self._decoder: Decoder[F] = type(self).decoder()
        self._closing = False
        self._turn = -1
        self._replies: list[bytes] = []

    @abstractmethod
    def on_frame(self, frame: F) -> None:
        """A frame has come: record, reply, reject, identify. Raises WireError for one that ends the
        connection, once what came before it is answered."""

    def record(
        self,
        device: str,
        name: str,
        data: Any,
        *,
        once: Number | None = None,
        time: str = "",
    ) -> bool:
        """Record a durable event ``name`` of the device that calls itself ``device``.

        ``once``: the number that tells a repeat; without one each frame is an event of its own.
        ``time``: when it was captured (RFC 3339); empty: now. False if it is a repeat.
        """
        id, edge = device_id(device), self.edge
        content = edge.encode(data) if once is not None else b""
        if once is not None and edge.repeats.is_repeat(id, once, content):
            edge.counts["repeats"] += 1
            return False
        # A number that never wraps identifies the event; without one its place in the file does.
        key = f"{id}/{once.value}" if once is not None and not once.wraps else ""
        time = time or edge.outbox.now()
        edge.outbox.add(id, name, key=key, subject=device, time=time, data=data)
        if once is not None:
            edge.repeats.remember(id, once, content, first=id not in self.devices)
        return True

    def reply(self, data: bytes) -> None:
        """Send bytes once all that was recorded so far is on disk."""
        outbox = self.edge.outbox
        if self._turn != outbox.turn:
            self._turn, self._replies = outbox.turn, []
            outbox.after_commit(partial(self._committed, self._replies))
        self._replies.append(data)

    def reject(self, reason: str, original: bytes) -> None:
        """Publish a dead letter about input that is invalid, and go on, unless that was too much of
        it. A device without a reply to expect sees nothing of it."""
        self.edge.counts["bad_input"] += 1
        self.edge.bus.dead_letter(self.edge.service, reason, original, peer=self.peer.address)
        if self.peer.invalid():
            self._closing = True

    def identify(self, device: str) -> None:
        """This device speaks here: its commands are sent here from now on, and the connection keeps
        its slot before those that have not sent a valid frame."""
        id = device_id(device)
        self.devices[id] = device
        self.edge.sessions[id] = self
        self.peer.identify()

    def close(self) -> None:
        """Take nothing more, and close when what was taken is answered."""
        if not self._closing:
            self._closing = True
            self.edge.outbox.after_commit(lambda _ok: self.peer.close())

    # What the server calls

    def received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._take(self._decoder.feed(data))
        except WireError as error:
            self._end(error, data)

    def _end(self, error: WireError, data: bytes) -> None:
        try:
            self._take(error.before)
        except WireError as first:  # the frames before it are at fault, too
            error = first
        self.reject(error.reason, error.original or data)
        self.close()

    def lost(self) -> None:
        for id in self.devices:
            if self.edge.sessions.get(id) is self:
                del self.edge.sessions[id]

    def _take(self, frames: Iterable[F]) -> None:
        try:
            for frame in frames:
                if self._closing:
                    return
                self.on_frame(frame)
        except OutboxFull:
            self.edge.hold_reading()
            self.close()

    def _committed(self, replies: list[bytes], ok: bool) -> None:
        if replies is self._replies:  # an idle connection keeps nothing
            self._turn, self._replies = -1, []
        if ok:
            self.peer.write(b"".join(replies))
        else:
            self.peer.close()
