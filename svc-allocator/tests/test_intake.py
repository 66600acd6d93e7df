"""The intake edge: what it takes, what it sets aside, and what it does when it is full."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from patchbay.testing import until
from patchbay_allocator.wire.intake import Job, encode

if TYPE_CHECKING:
    import pytest

    from conftest import House


async def write(house: House, data: bytes, *, close: bool = True) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(data)
    await writer.drain()
    if close:
        writer.close()
    return writer


async def test_one_connection_may_carry_many_jobs_in_any_pieces(house: House) -> None:
    await house.start()
    jobs = [Job("CHROMEBOOK_04", f"이름{number}", "696969") for number in range(3)]
    stream = b" \n".join(encode(job) for job in jobs)
    writer = await write(house, b"", close=False)
    for start in range(0, len(stream), 7):
        writer.write(stream[start : start + 7])
        await writer.drain()
        await asyncio.sleep(0)
    await house.counted(waiting=3)
    names = [one["data"]["CustomerName"] for one in await house.documents()]
    assert names == ["이름0", "이름1", "이름2"]
    writer.close()


async def test_what_is_no_job_is_set_aside_and_the_connection_goes_on_if_the_json_was_sound(
    house: House,
) -> None:
    await house.start()
    good = encode(Job("CHROMEBOOK_04", "이름", "696969"))
    for bad in (Job("", "a", "696969"), Job("a", " ", "696969"), Job("a", "b", "69696")):
        await write(house, encode(bad) + good)
    await write(house, good + b"nonsense" + good)
    await write(house, good + b'{"ClientName": "CHROME')
    await house.counted(waiting=5)
    await until(lambda: len(house.dead) == 5)
    assert sorted(letter["reason"] for letter in house.dead) == [
        "ClientName must be 1 to 256 characters, got 0",
        "ColorCode must be six hexadecimal digits, got '69696'",
        "CustomerName must be 1 to 256 characters, got only white space",
        "not a JSON object",
        "the connection ended within an object",
    ]
    assert all(letter["peer"].startswith("127.0.0.1:") for letter in house.dead)
    assert house.intake.bad_input == 5


async def test_a_connection_that_sends_ten_invalid_objects_is_closed_and_delays_no_job(
    house: House,
) -> None:
    await house.start()
    job = Job("CHROMEBOOK_04", "이름", "696969")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(encode(job) + b"{}" * 500_000 + encode(job))
    await house.send(job)
    await house.counted(waiting=2)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert house.intake.bad_input == 10
    assert house.intake.server is not None
    assert house.intake.server.invalid == 1
    await until(lambda: len(house.dead) == 10)


async def test_a_full_outbox_loses_nothing_that_was_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.start_intake()
    monkeypatch.setattr(house.intake.outbox, "_max_rows", 3)
    jobs = [Job("CHROMEBOOK_04", "이름", f"{number:06x}") for number in range(20)]
    await house.send(*jobs)
    await until(lambda: house.intake.server is not None and house.intake.server.paused)
    sent = asyncio.create_task(house.send(*jobs))
    house.watch()
    await house.start_domain(0)
    await sent
    await house.counted(waiting=40)
    await until(lambda: house.intake.server is not None and not house.intake.server.paused)


async def test_a_disk_that_fails_loses_nothing_that_was_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    await house.start()
    journal = house.intake.outbox._journal
    commit, failures = journal.commit, iter(range(2))

    def fail_twice(*arguments: object) -> None:
        if next(failures, None) is not None:
            raise sqlite3.OperationalError("disk I/O error")
        commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(journal, "commit", fail_twice)
    await house.send(*[Job("CHROMEBOOK_04", "이름", f"{n:06x}") for n in range(5)])
    await house.counted(waiting=5)
    colors = [one["data"]["ColorCode"] for one in await house.documents()]
    assert colors == [f"{n:06X}" for n in range(5)]


async def test_silent_and_chatting_connections_take_no_place_from_those_with_a_job(
    house: House,
) -> None:
    await house.start()
    server = house.intake.server
    assert server is not None
    hostile = [await write(house, b"{" if n % 2 else b"", close=False) for n in range(150)]
    jobs = [Job("CHROMEBOOK_04", "이름", f"{n:06x}") for n in range(50)]
    for job in jobs:
        await house.send(job)
        hostile.append(await write(house, b" ", close=False))
    await house.counted(waiting=50)
    assert server.connections <= 100
    assert server.refused == 0
    assert server.evicted > 0
    for writer in hostile:
        writer.close()


async def test_a_job_waits_while_all_places_are_taken_by_chromebooks(house: House) -> None:
    await house.start()
    server = house.intake.server
    assert server is not None
    job = encode(Job("CHROMEBOOK_04", "이름", "000000"))
    here = [await write(house, job, close=False) for _ in range(100)]
    await house.counted(waiting=100)
    for _ in range(50):
        await write(house, job)
    await until(lambda: server.waiting == 50)
    for writer in here:
        writer.close()
    await house.counted(waiting=150)
    assert (server.refused, server.evicted) == (0, 0)
