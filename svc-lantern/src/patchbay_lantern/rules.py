"""What becomes of the lanterns' state when somebody says something. Pure: no I/O, no clock."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from patchbay.errors import Rejected
from patchbay.messages import rfc3339
from patchbay_lantern.commands import Light, Registry
from patchbay_lantern.messages import NO_EFFECT, Commanded, Given, Order, Set, State


class Past(Struct, frozen=True):
    """A command that was given."""

    rev: int
    at: datetime
    command: str
    value: str | None
    by: str


class Lanterns(Struct, frozen=True):
    """All that is kept: how the lanterns shine, and how that came about, oldest first."""

    rev: int = 0
    light: dict[str, Order] = {}
    """What orders set -> the last order of it."""
    since: datetime | None = None
    by: str | None = None
    history: list[Past] = []


def orders_of(body: Set, registry: Registry) -> list[Order]:
    """The orders of a command from the bus, in normal form, in the order in which they act.

    Raises Rejected: unknown_command, bad_value, bad_request.
    """
    if body.command is not None:
        if any(getattr(body, one) is not None for one in ("state", "color", *NO_EFFECT)):
            raise Rejected("bad_request", "either command and value, or state and color")
        return [registry.order(body.command, body.value)]
    if body.value is not None:
        raise Rejected("bad_request", "a value, and no command")
    orders = []
    if body.color is not None:
        digits = f"{body.color.r:02x}{body.color.g:02x}{body.color.b:02x}"
        orders.append(registry.order("COLOR", digits))
    if body.state is not None:
        orders.append(registry.order(body.state, None))
    if not orders:
        raise Rejected("bad_request", "neither a command nor a state nor a color")
    return orders


def obey(
    lanterns: Lanterns,
    order: Order,
    registry: Registry,
    *,
    by: str,
    at: datetime,
    epoch: str,
    remember: int,
) -> tuple[Lanterns, Commanded]:
    """The state after an order, and what everybody is told. ``remember``: so many past commands."""
    rev = lanterns.rev + 1
    past = Past(rev=rev, at=at, command=order.command, value=order.value, by=by)
    after = Lanterns(
        rev=rev,
        light=dict(registry.obey(Light(lanterns.light), order).orders),
        since=at,
        by=by,
        history=[*lanterns.history, past][-remember:] if remember else [],
    )
    told = Commanded(command=order.command, value=order.value, by=by, epoch=epoch, rev=rev)
    return after, told


def state(lanterns: Lanterns, registry: Registry, epoch: str) -> State:
    """What everybody may see."""
    light = Light(lanterns.light)
    return State(
        on=light.on,
        color=light.color,
        since=None if lanterns.since is None else rfc3339(lanterns.since),
        by=lanterns.by,
        epoch=epoch,
        rev=lanterns.rev,
        orders=registry.present(light),
    )


def given(lanterns: Lanterns, limit: int) -> list[Given]:
    """The last commands, newest first."""
    return [
        Given(rev=one.rev, at=rfc3339(one.at), command=one.command, value=one.value, by=one.by)
        for one in reversed(lanterns.history[-limit:])
    ]
