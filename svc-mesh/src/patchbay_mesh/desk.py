"""Where people ask about nodes: ``mesh/node-5/cmd/update``, ``mesh/nodes/cmd/history`` and
``list``, and their answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Final

import msgspec

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.commands import Command
from patchbay.errors import Rejected, Unavailable
from patchbay.inbox import Aggregate
from patchbay.messages import encode, now, parse_time, rfc3339
from patchbay_mesh import rules
from patchbay_mesh.messages import (
    NODES,
    ROOT,
    SERVICE,
    Forget,
    History,
    List,
    Show,
    Update,
    node_address,
    node_device,
)
from patchbay_mesh.recent import Recent
from patchbay_mesh.room import Room
from patchbay_mesh.rules import Node
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.store import MeshStore, newest, reading

LOOK_S: Final = 5.0
"""What the store has not found in so long is refused: other commands wait behind it."""

Answer = dict[str, Any]
Handle = Callable[[Request, Any], Awaitable[Answer]]
Keep = Callable[[Iterable[Aggregate[Node]]], Awaitable[None]]


class Desk:
    """Serves the commands of nodes. ``keep`` saves changed nodes and publishes what follows."""

    def __init__(
        self,
        bus: Bus,
        kept: MeshStore,
        recent: Recent,
        room: Room,
        settings: MeshSettings,
        keep: Keep,
    ) -> None:
        self._kept = kept
        self._room = room
        self._recent = recent
        self._max_types = settings.max_types
        self._keep = keep
        Commands(
            bus,
            SERVICE,
            {
                "update": Command(Update, self._update),
                "show": Command(Show, _question(self._show)),
                "forget": Command(Forget, _question(self._forget)),
                "history": Command(History, _question(self._history)),
                "list": Command(List, _question(self._list)),
            },
            elsewhere=(ROOT,),
        )

    async def _update(self, request: Request, body: Update) -> Answer:
        """Put a value in the place of the latest; the same request again changes nothing."""
        nodes = self._kept.nodes
        async with nodes.lock:
            await self._kept.prepare()
            nodes.require_readable(request.device)
            node = nodes.get(request.device)
            if node is None:
                raise _unknown(request.device)
            before: Answer | None = node.answered(request.id) if request.again else None
            if before is not None:
                await self._keep([node])
                return before
            at = now()
            answer: Answer = {"node": node.state.node, "type": body.type, "time": rfc3339(at)}
            try:
                data = rules.updated(
                    node.state, body.type, body.hex, answer["time"], self._max_types
                )
                fact = reading(_cause(request), 0, node.state.node, body.type, at, data)
                await self._kept.save_facts([fact], [])
                node.finish(request.id, encode(answer).decode())
                await self._keep([node])
            except Unavailable:
                nodes.doubt([node.id])
                self._recent.clear()
                raise
            self._recent.add(node.state.node, body.type, at, data)
            return answer

    async def _forget(self, request: Request, body: Forget) -> Answer:
        """Forget a node; one that is not known has nothing but what it has reported, and perhaps
        retained topics of somebody else."""
        node = node_address(request.device)
        if node is None:
            raise _unknown(request.device)
        to = _moment(body.to, "to")
        async with self._kept.nodes.lock:
            await self._kept.prepare()
            known = await self._room.forget([request.device])
        answer: Answer = {"node": node, "known": bool(known), "readings": 0, "messages": 0}
        if body.documents == "remove":
            readings, messages, rest = await self._kept.remove_facts(node, to, LOOK_S / 2)
            answer |= {"readings": readings, "messages": messages}
            if rest is not None:
                answer["to"] = rfc3339(rest)
        return answer

    async def _show(self, request: Request, body: Show) -> Answer:
        async with self._kept.nodes.lock:
            await self._kept.prepare()
            self._kept.nodes.require_readable(request.device)
            node = self._kept.nodes.get(request.device)
            if node is None:
                raise _unknown(request.device)
            return {"node": msgspec.to_builtins(rules.state(node.state))}

    async def _history(self, request: Request, body: History) -> Answer:
        _of_all(request)
        since = _moment(body.since, "from")
        to = _moment(body.to, "to")
        async with self._kept.nodes.lock:
            await self._kept.prepare()
            self._kept.nodes.require_readable(node_device(body.node))
            node = self._kept.nodes.get(node_device(body.node))
            if node is None:
                raise _unknown(node_device(body.node))
            found = self._recent.find(body.node, body.type, since, to, body.limit)
        if found is None:
            async with asyncio.timeout(LOOK_S):
                documents = await self._kept.history(body.node, body.type, since, to, body.limit)
            found = newest(documents)
        values = [{"time": rfc3339(at), "hex": data.hex()} for at, data in found]
        return {"node": body.node, "type": body.type, "values": values}

    async def _list(self, request: Request, body: List) -> Answer:
        _of_all(request)
        async with self._kept.nodes.lock:
            await self._kept.prepare()
            nodes = [one.state for one in self._kept.nodes if one.state.active or not body.active]
        nodes.sort(key=lambda one: one.node)
        shown = nodes[body.skip : body.skip + body.limit]
        states = [msgspec.to_builtins(rules.state(one)) for one in shown]
        return {"nodes": states, "total": len(nodes)}


def _question(answer: Handle) -> Handle:
    """Who asks is told when the store is away, and asks again: a question that waited for it would
    let all commands wait."""

    async def asked(request: Request, body: Any) -> Answer:
        try:
            return await answer(request, body)
        except (Unavailable, TimeoutError) as error:
            raise Rejected("unavailable", str(error) or "the store takes too long") from error

    return asked


def _cause(request: Request) -> str:
    """What names the fact of an update, also when the store has to be asked again. A bare command
    has the id of any other with its words and its number, which begins anew when we do."""
    return f"update/{request.id}" + ("" if request.again else f"/{request.received_at}")


def _unknown(device: str) -> Rejected:
    return Rejected("unknown_node", f"{device} has never reported")


def _of_all(request: Request) -> None:
    if request.device != NODES:
        raise Rejected("bad_request", f"{request.name} is a question to the device {NODES}")


def _moment(text: str | None, name: str) -> datetime | None:
    try:
        return parse_time(text) if text is not None else None
    except ValueError as error:
        raise Rejected("bad_request", f"{name}: {error}") from error
