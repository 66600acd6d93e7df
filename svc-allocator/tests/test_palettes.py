"""A combinator gets no colour that it cannot mix; a job that stops the machine is parked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
import pytest

from patchbay.errors import SettingsError
from patchbay.services import discover
from patchbay.settings import Config
from patchbay.testing import until
from patchbay_allocator.messages import Rejected
from patchbay_allocator.palettes import Palettes
from patchbay_allocator.settings import check
from patchbay_allocator.wire.combinator import Answer, Decoder
from patchbay_allocator.wire.intake import Job

if TYPE_CHECKING:
    from conftest import Hall, House

RED, BLUE, GREY = "EF9595", "068FFF", "696969"


class Machine:
    """The combinator of the seed's project, as its program is: one job a read of 256 bytes, its
    number as text, and an end with an error at a colour that is not in its table. Somebody starts
    it again each time."""

    def __init__(self, number: int, *table: str) -> None:
        self.number = number
        self.mixed: list[str] = []
        self.deaths = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._table = table
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.gate.set()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(256):
                job = json.loads(data)
                if job["code"] not in self._table:  # KeyError
                    self.deaths += 1
                    return
                await self.gate.wait()
                self.mixed.append(job["code"])
                answer = {"_id": job["_id"], "status": "done", "device": str(self.number)}
                writer.write(json.dumps(answer).encode())
        finally:
            writer.transport.abort()


@pytest.fixture
async def machines() -> AsyncIterator[list[Machine]]:
    machines = [Machine(1, RED), Machine(2, BLUE)]
    for machine in machines:
        await machine.start()
    yield machines
    for machine in machines:
        await machine.stop()


def job(code: str, name: str = "이름") -> Job:
    return Job("CHROMEBOOK_04", name, code)


def with_palettes(house: House, **more: object) -> None:
    house.settings = msgspec.structs.replace(
        house.settings, palettes={"1": [RED.lower()], "2": [f"#{BLUE}"]}, **more
    )


async def test_each_job_goes_to_a_combinator_that_has_its_colour(
    house: House, machines: list[Machine]
) -> None:
    with_palettes(house)
    await house.start(*(machine.port for machine in machines))
    await house.send(job(RED), job(RED), job(RED), job(BLUE), job(RED), job(BLUE))
    await house.counted(done=6)
    assert [machine.mixed for machine in machines] == [[RED] * 4, [BLUE] * 2]
    assert [machine.deaths for machine in machines] == [0, 0]
    assert house.edge.wrong_device == 0


async def test_a_long_queue_for_one_combinator_does_not_keep_the_other_waiting(
    house: House, machines: list[Machine]
) -> None:
    with_palettes(house)
    machines[0].gate.clear()
    await house.start(*(machine.port for machine in machines))
    await house.send(*(job(RED) for _ in range(1_100)), job(BLUE))
    await until(lambda: machines[1].mixed == [BLUE])
    assert machines[0].mixed == []


async def test_a_job_that_no_combinator_can_mix_is_an_error_before_it_is_sent(
    house: House, machines: list[Machine]
) -> None:
    with_palettes(house)
    await house.start(*(machine.port for machine in machines))
    await house.send(job(GREY))
    await house.counted(error=1)
    (found,) = await house.documents()
    reason = f"no combinator can mix {GREY}: it must be {BLUE}, {RED}"
    assert (found["lastError"], found["attempts"]) == (reason, 0)
    await until(lambda: house.changed)
    assert [change["data"]["reason"] for change in house.changed] == [reason]

    submit = {"ClientName": "me", "CustomerName": "me", "ColorCode": GREY}
    answer = await house.ask("submit", **submit)
    assert answer["error"] == {"code": "bad_color", "message": reason}
    assert await house.refusal("retry", job=str(found["_id"])) == "bad_color"

    await house.ask("mode", mode="manual")
    waiting = (await house.ask("submit", **submit | {"ColorCode": RED}))["job"]
    assert await house.refusal("recolor", job=waiting, ColorCode=GREY) == "bad_color"
    answer = await house.ask("assign", job=waiting, device=2)
    assert answer["error"] == {
        "code": "bad_color",
        "message": f"combinator 2 cannot mix {RED}: it must be {BLUE}",
    }
    assert await house.refusal("assign", job=waiting, device=1) == ""
    await house.counted(done=1, error=1)
    assert [machine.deaths for machine in machines] == [0, 0]


async def test_jobs_that_wait_when_a_palette_is_set_are_parked_too(
    house: House, machines: list[Machine]
) -> None:
    """Also those that the seed's server has written, in its form."""
    await house.store.collection("jobs").insert_many(
        [
            {
                "ClientName": "C",
                "data": {"CustomerName": "이름", "ColorCode": code},
                "status": "waiting",
                "assignedAt": "0",
            }
            for code in (GREY, int(GREY), RED, RED.lower())
        ]
    )
    with_palettes(house)
    await house.start(*(machine.port for machine in machines))
    await house.counted(done=2, error=2)
    assert machines[0].mixed == [RED, RED]
    assert [machine.deaths for machine in machines] == [0, 0]


async def test_a_job_that_stops_the_machine_is_parked_after_some_attempts(
    house: House, machines: list[Machine]
) -> None:
    """Each attempt is on a new connection, since the machine was started again."""
    house.settings = msgspec.structs.replace(house.settings, max_attempts=2, reconnect_grace_s=0.1)
    await house.start(machines[0].port)
    await house.send(job(GREY), job(RED))
    await house.counted(error=1, done=1)
    assert machines[0].deaths == 2
    (found,) = await house.documents(status="error")
    assert found["lastError"] == "the connection was lost; attempt 2 of 2"


async def test_without_a_palette_every_colour_is_mixed(house: House, hall: Hall) -> None:
    hall.gate.set()
    await hall.open(2)
    house.settings = msgspec.structs.replace(house.settings, palettes={"1": [RED]})
    await house.start(*hall.ports)
    await house.send(job(GREY), job(BLUE))
    await house.counted(done=2)
    assert {device for device, _ in hall.order} == {2}


def test_the_number_of_a_combinator_may_be_text() -> None:
    def device(text: str) -> int | None:
        data = b'{"_id": "a", "status": "done", "device": ' + text.encode() + b"}"
        (answer,) = Decoder().feed(data)
        assert isinstance(answer, Answer)
        return answer.device

    assert [device(one) for one in ('"1"', "1", '"two"', '"999999"', "1" * 30, "-1", "true")] == [
        1,
        1,
        *[None] * 5,
    ]


def test_a_long_palette_is_listed_in_part() -> None:
    codes = [f"{n:06X}" for n in range(300)]
    with pytest.raises(Rejected, match=r"000013 or one of 280 others$"):
        Palettes([1], {"1": codes}).need_any("FFFFFF")
    Palettes([1, 2], {"1": codes}).need_any("FFFFFF")
    Palettes([], {}).need_any("FFFFFF")


@pytest.mark.parametrize(
    ("palettes", "named"),
    [
        ('{"3": ["EF9595"]}', "palettes: 3: no such combinator, there are 2"),
        ('{"one": ["EF9595"]}', "PALETTES"),
        ('{"1": ["red"]}', "PALETTES"),
    ],
)
def test_a_palette_that_cannot_be_is_refused_by_its_name(palettes: str, named: str) -> None:
    environ = {
        "PATCHBAY_ALLOCATOR__COMBINATORS": '["a:5000", "b:5000"]',
        "PATCHBAY_ALLOCATOR__PALETTES": palettes,
    }
    with pytest.raises(SettingsError, match=named):
        check(Config.read(None, environ, discover()))
