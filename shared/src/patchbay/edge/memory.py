"""Values that an edge remembers, stored in the outbox's file with the events that changed them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Generic, TypeVar

from patchbay.outbox import Outbox

V = TypeVar("V")

_ABSENT = object()


class Memory(MutableMapping[str, V], Generic[V]):
    """Values by name. A change is on disk after the commit of what is taken in with it; if that
    commit fails, the change is undone, as are those of later turns.

    ``prefix`` names the notes in the file. One that ``decode`` does not understand is forgotten,
    logged and counted (`Outbox.read_notes`). A value must not be changed in place.
    """

    def __init__(
        self,
        outbox: Outbox,
        prefix: str,
        encode: Callable[[V], bytes],
        decode: Callable[[bytes], V],
    ) -> None:
        self._outbox = outbox
        self._prefix = prefix
        self._encode = encode
        self._values = outbox.read_notes(prefix, decode)
        self._turn = -1
        self._before: dict[str, V | object] = {}

    def __getitem__(self, name: str) -> V:
        return self._values[name]

    def __setitem__(self, name: str, value: V) -> None:
        self._changes(name)
        self._values.pop(name, None)  # the order is that of the last change
        self._values[name] = value
        self._outbox.note(self._prefix + name, self._encode(value))

    def __delitem__(self, name: str) -> None:
        if name not in self._values:
            raise KeyError(name)
        self._changes(name)
        del self._values[name]
        self._outbox.note(self._prefix + name, None)

    def __iter__(self) -> Iterator[str]:
        """The names: first those that have not been changed for longest."""
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _changes(self, name: str) -> None:
        if self._turn != self._outbox.turn:
            self._turn, self._before = self._outbox.turn, {}
            self._outbox.after_commit(partial(self._committed, self._before))
        self._before.setdefault(name, self._values.get(name, _ABSENT))

    def _committed(self, before: dict[str, V | object], ok: bool) -> None:
        if ok:
            return
        for name, value in before.items():
            self._values.pop(name, None)
            if value is not _ABSENT:
                self._values[name] = value  # type: ignore[assignment]
