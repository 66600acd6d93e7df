"""How commands come to the locker's desk: late, twice, bare, or while the store is away."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from patchbay.errors import Unavailable
from patchbay.messages import encode, new_id
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.testing import PATIENCE_S, MakeBus, Part, eventually, until
from tests.locker_domain import (
    DOMAIN,
    TOPICS,
    Office,
    answers,
    desired_codes,
    enveloped,
    keep,
    known_board,
    order,
    rental,
)


@pytest.fixture
async def office(office: Office) -> Office:
    """A domain that knows board 1953, whose cells 2, 4, 5, 7, 8, 9 and so on have a lock."""
    await keep(office.store, known_board())
    await office.open()
    return office


async def test_a_person_may_send_a_bare_command_and_hears_of_a_refusal_as_an_event(
    office: Office, mosquitto: Part
) -> None:
    def publish(command: str, body: str) -> None:
        topic = TOPICS.command("locker", "1953", command)
        options = ["-p", str(mosquitto.port), "-q", "1", "-t", topic, "-m", body]
        subprocess.run(["mosquitto_pub", *options], check=True, timeout=PATIENCE_S)

    publish("assign", '{"cell": 5, "minutes": 60, "code": "1492"}')
    assert await desired_codes(office, 4) == {5: "1492"}
    for command, body in (
        ("assign", '{"cell": 5, "minutes": 60}'),
        ("assign", "{nonsense"),
        ("dance", "{}"),
    ):
        publish(command, body)
    await until(lambda: len(office.ears.facts("rejected")) == 3)
    said = [(one["command"], one["code"]) for one in office.ears.facts("rejected")]
    assert said == [
        ("assign", "cell_busy"),
        ("assign", "bad_request"),
        ("dance", "unknown_command"),
    ]


async def test_a_command_delivered_twice_acts_once_and_gets_the_same_answer(
    office: Office,
) -> None:
    command = enveloped("assign", {"cell": "auto", "minutes": 60})
    await order(office, "assign", command)
    await order(office, "assign", command)
    await until(lambda: len(answers(office)) == 2)
    first, second = answers(office)
    assert first["ok"]
    assert first == second
    assert len(await office.documents("rentals")) == 1
    assert (await office.document("boards", "1953"))["rev"] == 4


async def test_a_command_is_known_also_after_a_restart_of_the_domain(office: Office) -> None:
    command = enveloped("revoke", {"cell": 5})
    await office.done("assign", cell=5, minutes=60)
    await order(office, "revoke", command)
    await until(lambda: len(answers(office)) == 1)
    await office.close()
    await office.open()
    await office.done("assign", cell=5, minutes=60)
    await order(office, "revoke", command)
    await until(lambda: len(answers(office)) == 2)
    assert answers(office)[0] == answers(office)[1]
    assert (await office.done("state"))["board"]["busy"] == [5]


async def test_a_reset_that_comes_again_late_is_answered_the_same_and_ordered_once(
    office: Office,
) -> None:
    command = enveloped("reset", {})
    await order(office, "reset", command)
    await until(lambda: len(answers(office)) == 1)
    await office.report(rebooted=True, reset=True)
    await until(lambda: office.ears.desired()[-1]["reset_id"] is None)
    await office.close()
    await order(office, "reset", command)
    await office.open()
    await until(lambda: len(answers(office)) == 2)
    first, again = answers(office)
    assert (first["ok"], first["reset_id"]) == (True, 1)
    assert again == first
    assert office.ears.desired()[-1]["reset_id"] is None
    assert await office.done("reset") == {"reset_id": 2}


async def test_two_commands_that_say_the_same_are_two(office: Office) -> None:
    body = {"cell": "auto", "minutes": 60}
    for id in ("c1", "c2"):
        await order(office, "assign", enveloped("assign", body, id=id))
    for _ in range(2):
        await order(office, "assign", encode(body))
    await until(lambda: len(answers(office)) == 4)
    assert [one["cell"] for one in answers(office)] == [2, 4, 5, 7]


async def test_a_retained_command_acts_when_it_is_given_and_not_at_each_start(
    office: Office,
) -> None:
    topic = TOPICS.command("locker", "1953", "block")
    await office.operator.publish(topic, b"{}", retain=True)
    await until(lambda: office.ears.desired()[-1]["blocked"])
    await office.done("unblock")
    await office.close()
    await office.open()
    assert not (await office.done("state"))["board"]["blocked"]


# The store


async def test_commands_given_while_the_store_is_away_are_done_once_when_it_is_back(
    frail: tuple[Office, Part],
) -> None:
    office, store = frail
    await keep(office.store, known_board())
    await office.open()
    store.kill()
    await order(office, "assign", encode({"cell": "auto", "minutes": 60}))
    await order(office, "assign", enveloped("assign", {"cell": "auto", "minutes": 60}))
    await order(office, "block", b"")
    await until(lambda: office.domain.kept.boards.lock.locked())
    assert answers(office) == []
    store.start()
    await until(lambda: len(answers(office)) == 3)
    assert [one.get("cell") for one in answers(office)] == [2, 4, None]
    board = await office.document("boards", "1953")
    assert (board["rev"], sorted(board["rentals"]), board["blocked"]) == (6, ["2", "4"], True)
    assert len(await office.documents("rentals")) == 2
    assert len(await desired_codes(office, 6)) == 2


class Doubtful(Store):
    """A store whose next writes of boards land though they look failed, or wait for ``go``."""

    def __init__(self, settings: StoreSettings, uri: str) -> None:
        super().__init__(settings, uri)
        self.lose_answers = 0
        self.held: asyncio.Event | None = None
        self.go = asyncio.Event()

    async def replace(
        self, collection: str, changes: Iterable[tuple[Mapping[str, Any], Document]]
    ) -> int:
        if self.held is not None:
            self.held.set()
            await self.go.wait()
        done = await super().replace(collection, changes)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("the answer was lost")
        return done


@pytest.fixture
async def doubtful(store_server: Part) -> AsyncIterator[Doubtful]:
    settings = StoreSettings(database=f"doubtful_{os.getpid()}_{new_id()}")
    async with Doubtful(settings, f"mongodb://127.0.0.1:{store_server.port}") as store:
        yield store


async def test_a_command_whose_save_landed_though_it_looked_failed_acts_once(
    make_bus: MakeBus, doubtful: Doubtful, tmp_path: Path
) -> None:
    await keep(doubtful, known_board())
    async with Office(make_bus, doubtful, tmp_path) as office:
        await office.open()
        doubtful.lose_answers = 1
        answer = await office.done("assign", cell="auto", minutes=60)
        assert answer["cell"] == 2
        assert await desired_codes(office, 4) == {2: answer["code"]}
        assert (await office.document("rentals", answer["rental"]))["status"] == "active"
        assert len(await office.documents("rentals")) == 1
        await until(lambda: office.ears.states()[-1]["busy"] == [2])


async def test_a_question_asked_while_a_board_is_being_saved_leaves_it_alone(
    make_bus: MakeBus, doubtful: Doubtful, tmp_path: Path
) -> None:
    await keep(doubtful, known_board(rental(2, left_s=1.0)))
    async with Office(make_bus, doubtful, tmp_path) as office:
        await office.open()
        doubtful.held = asyncio.Event()
        await asyncio.wait_for(doubtful.held.wait(), PATIENCE_S)  # the rental's time is over
        questions = [asyncio.create_task(office.ask(one)) for one in ("state", "boards")]
        await until(lambda: len(office.ears.on(TOPICS.command("locker", "1953", "state"))) == 1)
        for bus in (office.operator, office.domain.bus):  # the domain has heard them by then
            await bus.publish("patchbay/after/the/question", b"")
        await doubtful.ping()
        doubtful.held = None
        doubtful.go.set()
        state, boards = await asyncio.gather(*questions)
        assert state["board"]["busy"] == boards["boards"][0]["busy"] == []
        await eventually(office.has("rentals", "rental-2", status="expired"))
        await office.report()
        assert [one["rental"] for one in office.ears.facts("expired")] == ["rental-2"]
        assert office.ears.desired()[-1]["rentals"] == []


async def test_the_domain_says_who_it_is_in_what_it_refuses(office: Office) -> None:
    topic = TOPICS.command("locker", "1953", "revoke")
    await office.operator.publish(topic, encode({"cell": 5}))
    await until(lambda: office.ears.events("rejected"))
    [event] = office.ears.events("rejected")
    assert (event.source, event.type, event.subject) == (
        DOMAIN,
        "patchbay.locker.rejected",
        "1953",
    )
    assert office.ears.facts("rejected")[0]["message"]
