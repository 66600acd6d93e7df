"""Commands that change a desired state, and commands that fail once they were confirmed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Struct

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.commands import Command
from patchbay.errors import OutcomeUnknown, Unavailable
from patchbay.testing import PATIENCE_S, MakeBus, until

WANT = "patchbay/lamp/1/cmd/want"
MOVE = "patchbay/lamp/1/cmd/move"


class Body(Struct, frozen=True):
    """No fields."""


class Lamp:
    """Stores what is wanted, once it is confirmed. ``away``: how often its store fails then."""

    def __init__(self, bus: Bus) -> None:
        self.stored: list[str] = []
        self.handled = self.away = 0
        Commands(
            bus,
            "lamp",
            {
                "want": Command(Body, self.handle, desired=True, confirms=True),
                "move": Command(Body, self.handle, moves=True, confirms=True, expires_s=0.3),
            },
        )

    async def handle(self, request: Request, body: Body) -> dict[str, Any]:
        self.handled += 1
        await request.confirm()
        if self.away:
            self.away -= 1
            raise Unavailable("the store is away")
        self.stored.append(request.name)
        return {}


@pytest.fixture
async def client(make_bus: MakeBus) -> Bus:
    bus = make_bus("cli")
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    return bus


async def serve(make_bus: MakeBus) -> Lamp:
    bus = make_bus("lamp-domain-x", durable=True)
    lamp = Lamp(bus)
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    await until(lambda: not bus._router.late)
    return lamp


async def test_a_desired_state_that_was_queued_is_stored_unless_its_sender_has_given_up(
    make_bus: MakeBus, client: Bus
) -> None:
    first = make_bus("lamp-domain-x", durable=True)
    Lamp(first)
    first.start()
    await first.wait_connected(PATIENCE_S)
    await first.stop()  # its session stays
    await client.publish(WANT, b"{}")  # nobody waits for this one: it is wanted until it is done
    await client.publish(MOVE, b"{}")
    with pytest.raises(TimeoutError):
        await client.request(WANT, b"{}", actuates=True, timeout_s=0.2)
    lamp = await serve(make_bus)
    await client.request(WANT, b"{}", actuates=True, timeout_s=PATIENCE_S)
    assert lamp.stored == ["want", "want"]
    assert lamp.handled == 3


async def test_a_save_that_fails_after_the_confirmation_is_tried_again(
    make_bus: MakeBus, client: Bus
) -> None:
    lamp = await serve(make_bus)
    lamp.away = 3
    answer = await client.request(WANT, b"{}", actuates=True, timeout_s=PATIENCE_S)
    assert json.loads(answer)["ok"]
    assert lamp.stored == ["want"]


async def test_what_was_confirmed_and_not_done_in_time_is_unknown_and_not_an_error(
    make_bus: MakeBus, client: Bus
) -> None:
    lamp = await serve(make_bus)
    lamp.away = 1_000_000
    with pytest.raises(OutcomeUnknown, match="could not be completed in time"):
        await client.request(MOVE, b"{}", actuates=True, timeout_s=PATIENCE_S)
    lamp.away = 0
    assert json.loads(await client.request(WANT, b"{}", timeout_s=PATIENCE_S))["ok"]
    assert lamp.stored == ["want"]
