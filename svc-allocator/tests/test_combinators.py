"""What combinators and their connections may do: errors, late and wrong answers, losses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from patchbay.testing import until
from patchbay_allocator.wire.intake import Job

if TYPE_CHECKING:
    from conftest import Hall, House

JOB = Job("CHROMEBOOK_04", "이름", "696969")


class Puppet:
    """A combinator on strings: the test says what it answers."""

    def __init__(self) -> None:
        self.port = 0
        self.got: list[dict[str, Any]] = []
        self.connections = 0
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.connections += 1
        try:
            while data := await reader.read(1024):
                self.got.append(json.loads(data))
        except ConnectionError:
            pass
        finally:
            writer.close()

    def say(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    def answer(self, job: str, status: str = "done", device: int = 1) -> None:
        self.say(json.dumps({"_id": job, "status": status, "device": device}).encode())

    def hang_up(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.transport.abort()


@pytest.fixture
async def puppet() -> AsyncIterator[Puppet]:
    puppet = Puppet()
    await puppet.listen()
    yield puppet
    await puppet.close()


async def test_error_is_tried_again_and_parked_after_the_third(house: House, hall: Hall) -> None:
    hall.gate.set()
    hall.outcomes["696969"] = "error"
    await hall.open()
    await house.start(*hall.ports)
    await house.send(JOB)
    await house.counted(error=1)
    (found,) = await house.documents()
    assert (found["attempts"], found["lastError"]) == (
        3,
        "the combinator said error; attempt 3 of 3",
    )
    assert found["assignedAt"] in (1, 2)
    assert len(hall.order) == 3
    hall.outcomes.clear()
    assert await house.refusal("assign", job=str(found["_id"]), device=1) == "wrong_state"
    assert await house.refusal("retry", job=str(found["_id"])) == ""
    await house.counted(done=1)
    assert (await house.documents())[0]["attempts"] == 0


async def test_the_connection_decides_who_answers(house: House, puppet: Puppet) -> None:
    await house.start(puppet.port)
    await house.send(JOB)
    await until(lambda: puppet.got)
    puppet.answer(puppet.got[0]["_id"], device=7)
    await house.counted(done=1)
    assert (await house.documents())[0]["assignedAt"] == 1
    assert house.edge.wrong_device == 1
    assert house.dead == []


async def test_answers_that_nobody_waits_for_change_nothing(house: House, puppet: Puppet) -> None:
    await house.start(puppet.port)
    await house.ask("mode", mode="manual")
    await house.send(JOB)
    await house.counted(waiting=1)
    (found,) = await house.documents()
    puppet.answer("65a1f0c20000000000000001")
    puppet.answer("no id of ours")
    puppet.answer(str(found["_id"]))
    puppet.say(b'{"_id": "a", "status": "ready"}')
    await until(lambda: len(house.dead) == 4)
    assert sorted(letter["reason"] for letter in house.dead) == [
        "not in progress there: combinator 1",
        "status must be done or error",
        "unknown job: combinator 1",
        "unknown job: combinator 1",
    ]
    assert await house.documents() == [found]
    assert puppet.connections == 1


async def test_an_answer_said_twice_counts_once(house: House, puppet: Puppet) -> None:
    await house.start(puppet.port)
    await house.send(JOB)
    await until(lambda: puppet.got)
    puppet.answer(puppet.got[0]["_id"])
    puppet.answer(puppet.got[0]["_id"], "error")
    await house.counted(done=1)
    await until(lambda: house.dead)
    assert house.dead[0]["reason"] == "not in progress there: combinator 1"
    assert (await house.documents())[0]["status"] == "done"


async def test_unsound_json_ends_the_connection_and_the_job_is_tried_again(
    house: House, puppet: Puppet
) -> None:
    await house.start(puppet.port)
    await house.send(JOB)
    await until(lambda: puppet.got)
    puppet.say(b"done!")
    await until(lambda: puppet.connections == 2)
    await until(lambda: len(puppet.got) == 2)
    puppet.answer(puppet.got[1]["_id"])
    await house.counted(done=1)
    (found,) = await house.documents()
    assert (found["attempts"], found["lastError"]) == (1, "the connection was lost")
    assert [letter["reason"] for letter in house.dead] == ["not a JSON object"]


async def test_a_late_answer_on_a_new_connection_counts_within_the_grace(
    house: House, puppet: Puppet
) -> None:
    house.settings = msgspec.structs.replace(house.settings, reconnect_grace_s=30)
    await house.start(puppet.port)
    await house.send(JOB, JOB)
    await until(lambda: puppet.got)
    puppet.hang_up()
    await until(lambda: puppet.connections == 2)
    assert len(puppet.got) == 1
    puppet.answer(puppet.got[0]["_id"])
    await house.counted(done=1, inprogress1=1)
    assert (await house.documents())[0]["attempts"] == 0
    await until(lambda: len(puppet.got) == 2)


async def test_after_the_grace_a_lost_job_is_tried_again(house: House, puppet: Puppet) -> None:
    await house.start(puppet.port)
    await house.send(JOB)
    await until(lambda: puppet.got)
    puppet.hang_up()
    await until(lambda: len(puppet.got) == 2)
    assert puppet.got[0] == puppet.got[1]
    puppet.answer(puppet.got[1]["_id"])
    await house.counted(done=1)
    (found,) = await house.documents()
    assert (found["attempts"], found["lastError"]) == (1, "the connection was lost")


async def test_no_answer_in_time_is_a_failure_and_a_new_connection(
    house: House, puppet: Puppet
) -> None:
    house.settings = msgspec.structs.replace(house.settings, job_timeout_s=0.6)
    await house.start(puppet.port)
    await house.send(JOB)
    await house.counted(error=1)
    (found,) = await house.documents()
    assert (found["attempts"], found["lastError"]) == (3, "no answer in time; attempt 3 of 3")
    assert [one["_id"] for one in puppet.got] == [str(found["_id"])] * 3
    await until(lambda: puppet.connections == 4)
    puppet.answer(str(found["_id"]))
    await until(lambda: house.dead)
    assert house.dead[0]["reason"] == "not in progress there: combinator 1"


async def test_after_a_restart_the_edge_says_what_it_had_and_sends_nothing_twice(
    house: House, puppet: Puppet
) -> None:
    house.settings = msgspec.structs.replace(house.settings, reconnect_grace_s=30)
    await house.start(puppet.port)
    await house.send(JOB)
    await until(lambda: puppet.got)
    await house.stop("edge")
    await until(lambda: not house.domain.presence.connected())
    await house.start_edge(puppet.port)
    await until(lambda: house.domain.presence.connected())
    state = house.domain.presence.state(1)
    assert state is not None
    assert (state.job, state.lost_at is None) == (puppet.got[0]["_id"], False)
    puppet.answer(puppet.got[0]["_id"])
    await house.counted(done=1)
    assert len(puppet.got) == 1


async def test_what_nobody_holds_is_sent_again(house: House, puppet: Puppet) -> None:
    await house.start(puppet.port)
    await house.send(JOB)
    await until(lambda: puppet.got)
    await house.stop("edge")
    (house.directory / "combinators.sqlite").unlink()
    await house.start_edge(puppet.port)
    await until(lambda: len(puppet.got) == 2)
    puppet.answer(puppet.got[1]["_id"])
    await house.counted(done=1)


async def test_a_combinator_that_is_away_gets_nothing_and_is_found_again(
    house: House, puppet: Puppet
) -> None:
    await house.start(puppet.port)
    await puppet.close()
    await until(lambda: not house.domain.presence.connected())
    await house.send(JOB)
    await house.counted(waiting=1)
    await puppet.listen()
    await until(lambda: puppet.got)
    puppet.answer(puppet.got[0]["_id"])
    await house.counted(done=1)


async def test_a_combinator_is_online_only_once_it_has_answered(
    house: House, puppet: Puppet
) -> None:
    await house.start(puppet.port)
    assert not house.domain.presence.online()
    await until(lambda: house.state.get("combinators"))
    view = house.state["combinators"][0]
    assert (view["connected"], view["online"]) == (True, False)
    await house.send(JOB)
    await until(lambda: puppet.got)
    assert not house.domain.presence.online()
    puppet.answer(puppet.got[0]["_id"])
    await house.counted(done=1)
    await until(lambda: house.domain.presence.online() == {1})
    await until(lambda: house.state["combinators"][0]["online"])
    puppet.hang_up()
    await until(lambda: not house.domain.presence.online())
    await until(lambda: house.domain.presence.online())  # it is known at this address
    await house.stop("edge")
    await house.start_edge(puppet.port)
    await until(lambda: house.domain.presence.online())


async def test_one_that_swallows_a_job_is_not_online_any_more(house: House, puppet: Puppet) -> None:
    house.settings = msgspec.structs.replace(house.settings, job_timeout_s=1.5)
    await house.start(puppet.port)
    await house.send(JOB)
    await until(lambda: puppet.got)
    puppet.answer(puppet.got[0]["_id"])
    await until(lambda: house.domain.presence.online())
    await house.send(JOB)
    await until(lambda: len(puppet.got) == 2)
    await until(lambda: house.domain.presence.connected() and not house.domain.presence.online())
