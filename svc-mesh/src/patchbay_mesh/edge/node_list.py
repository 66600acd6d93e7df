"""The nodes as today's dashboard reads them: the whole list each time (``monitor_format = "v2"``).

Active       it is active
Idle         it is away, for less than ``active_timeout_s``
Disconnect   it is away for longer, or was when the monitor came
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from patchbay_mesh.edge.cache import ACTIVE
from patchbay_mesh.messages import State, type_bytes
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.wire import monitor as wire

NODE_DATA: Final = 4096
"""Characters of values that are kept of a node, the newest first: a node with forty types of six
bytes has half of that."""

LIST_DATA: Final = 131_072
"""Characters of values in one list; the nodes behind that are listed without. A client that does
not read is dropped at twice as much."""


class NodeList:
    """What the list has to show. ``clock``: seconds, monotonic."""

    def __init__(self, settings: MeshSettings, clock: Callable[[], float]) -> None:
        self.changed = False
        """Something has changed since `text`."""
        self._entries: dict[int, wire.NodeEntry] = {}
        self._idle_since: dict[int, float] = {}
        self._idle_s = settings.active_timeout_s
        self._clock = clock
        self._keys: dict[str, str] = {}
        if settings.types == "opcodes":
            for id, type, _ in (one.split(":") for one in settings.data_ids):
                self._keys[type] = f"{int(id):02x}"

    def put(self, state: State, view: wire.NodeView) -> None:
        """What the domain has published of a node."""
        before = self._entries.get(state.node)
        if state.status == ACTIVE:
            self._idle_since.pop(state.node, None)
        elif before is not None and before.status == "Active":
            self._idle_since[state.node] = self._clock()
        idle = state.node in self._idle_since
        entry = wire.NodeEntry(
            address=state.node,
            status="Active" if state.status == ACTIVE else "Idle" if idle else "Disconnect",
            uuid=view.uuid,
            gps=view.gps,
            data=self._data(state),
        )
        if entry != before:
            self._entries[state.node] = entry
            self.changed = True

    def remove(self, node: int) -> None:
        """The node is forgotten."""
        self._idle_since.pop(node, None)
        self.changed |= self._entries.pop(node, None) is not None

    def tick(self) -> None:
        """Who has been idle for long is gone."""
        limit = self._clock() - self._idle_s
        for node in [node for node, since in self._idle_since.items() if since <= limit]:
            del self._idle_since[node]
            self._entries[node] = replace(self._entries[node], status="Disconnect")
            self.changed = True

    def text(self) -> str:
        """The whole list."""
        self.changed = False
        entries = []
        size = 0
        for _, entry in sorted(self._entries.items()):
            size += _size(entry.data)
            entries.append(entry if size <= LIST_DATA else replace(entry, data={}))
        return wire.encode_list(entries)

    def _data(self, state: State) -> dict[str, list[str]]:
        data: dict[str, list[str]] = {}
        size = 0
        for type, value in sorted(state.values.items(), key=lambda one: one[1].time, reverse=True):
            size += len(value.hex)
            if size > NODE_DATA:
                break
            data[self._keys.get(type) or type_bytes(type).hex()] = [value.hex]
        return data


def _size(data: dict[str, list[str]]) -> int:
    return sum(len(value) for values in data.values() for value in values)
