"""Dead letters over a real broker."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from msgspec import structs

from patchbay.bus import Bus, Message
from patchbay.bus.letters import read_letter
from patchbay.messages import DeadLetter, encode
from patchbay.testing import MakeBus, Part, broker_settings, until
from patchbay.topics import Topics


def read(bus: Bus) -> list[dict[str, Any]]:
    """The letters of the locker service as they come."""
    letters: list[dict[str, Any]] = []

    async def take(message: Message) -> None:
        letters.append(json.loads(message.payload))

    bus.subscribe("patchbay/dead/locker", take)
    return letters


async def test_a_letter_says_what_came_from_where_and_why_it_was_set_aside(
    make_bus: MakeBus,
) -> None:
    bus = make_bus("locker-edge-x")
    letters = read(bus)
    bus.start()
    await bus.wait_connected(5)
    bus.dead_letter("locker", "no ID", b"ACon_V1.0", peer="127.0.0.1:1")
    bus.dead_letter("locker", "no text", b"\xff", topic="patchbay/locker/7/desired")
    await until(lambda: len(letters) == 2)
    text, no_text = letters
    assert (text["reason"], text["peer"], text["source"]) == (
        *("no ID", "127.0.0.1:1"),
        "locker-edge-x",
    )
    assert (text["text"], bytes.fromhex(text["hex"])) == ("ACon_V1.0", b"ACon_V1.0")
    assert (no_text["topic"], no_text["hex"]) == ("patchbay/locker/7/desired", "ff")
    assert "text" not in no_text
    assert bus.dead_letters == 2


async def test_letters_wait_for_the_broker_and_show_the_beginning_of_the_original(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    mosquitto.kill()
    bus = make_bus("locker-edge-x")
    letters = read(bus)
    bus.start()
    bus.dead_letter("locker", "no ID", b"x" * 2000)
    mosquitto.start()
    await until(lambda: len(letters) == 1)
    assert (letters[0]["size"], len(letters[0]["hex"])) == (2000, 2048)


async def test_a_reason_that_no_packet_would_hold_is_cut_and_holds_up_no_other_letter(
    make_bus: MakeBus,
) -> None:
    bus = make_bus("locker-domain-x")
    letters = read(bus)
    bus.start()
    await bus.wait_connected(5)
    bus.dead_letter("locker", "x" * 300_000, b"1")
    bus.dead_letter("locker", "short", b"2")
    await until(lambda: len(letters) == 2)
    assert [letter["reason"] for letter in letters] == ["x" * 1024, "short"]


async def test_a_flood_of_refusals_gets_ten_letters_a_second_and_one_that_counts_the_rest(
    make_bus: MakeBus,
) -> None:
    reader = make_bus("locker-domain-x")
    letters = read(reader)
    bus = make_bus("locker-edge-x")
    for one in (reader, bus):
        one.start()
        await one.wait_connected(5)
    flood = 20_000
    began = time.monotonic()
    for number in range(flood):
        bus.dead_letter("locker", f"invalid {number}", b"{}", peer="127.0.0.1:1")
    at_most = 12 + 10 * (time.monotonic() - began)
    bus.dead_letter("locker", "over the packet size", b"[]", accepted=True)
    # On a slow machine the flood has more letters than may be in flight at once.
    await until(lambda: not bus._letters._waiting and not bus._letters._in_flight)
    await bus.stop()  # what was left out is said at the latest now
    await until(lambda: letters and "left out" in letters[-1]["reason"])
    *first, accepted, summary = letters
    assert 10 <= len(first) <= at_most
    assert accepted["reason"] == "over the packet size"
    number, text = summary["reason"].split(" ", 1)
    assert text == f"dead letters left out, the last one: invalid {flood - 1}"
    assert int(number) + len(first) == flood


async def test_what_is_left_out_is_said_once_in_a_while_and_letters_wait_in_bounded_room(
    mosquitto: Part,
) -> None:
    settings = structs.replace(
        broker_settings(mosquitto.port),
        dead_letters_per_s=1_000_000,
        dead_letter_summary_s=0.2,
        dead_letter_queue=20,
    )
    bus = Bus(settings, client_id="locker-edge-x", topics=Topics(), announce=False)
    letters = read(bus)
    mosquitto.kill()
    async with bus:
        for number in range(100):
            bus.dead_letter("locker", f"invalid {number}", b"{}")
        await asyncio.sleep(0.5)  # nothing is said while nobody could read it
        mosquitto.start()
        await until(lambda: len(letters) == 21)
    assert [one["reason"] for one in letters[:20]] == [f"invalid {n}" for n in range(80, 100)]
    assert letters[20]["reason"] == "80 dead letters left out, the last one: invalid 79"


async def test_ten_refusals_a_second_are_logged(
    make_bus: MakeBus, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = make_bus("locker-edge-x")
    for number in range(1000):
        bus.dead_letter("locker", f"invalid {number}", b"{}", peer="127.0.0.1:1")
    await bus.stop()
    text = capsys.readouterr().out
    assert 10 <= text.count("invalid input") <= 20
    assert text.count("dead letters left out") == 1


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff", b'{"a": "\xff"}', b"[" * 50_000, b'{"id": "1"}', b"x" * 5000],
)
def test_what_is_no_letter_is_read_as_a_letter_about_itself(payload: bytes) -> None:
    letter = read_letter(payload, "locker-domain-x")
    assert letter.reason.startswith("invalid dead letter: ")
    assert (letter.source, letter.size) == ("locker-domain-x", len(payload))
    assert bytes.fromhex(letter.hex) == payload[:1024]


def test_a_letter_is_read_as_it_was_written() -> None:
    written = DeadLetter(
        id="1", reason="no ID", time="2026-01-01T00:00:00.000Z", source="e", size=2, hex="6869"
    )
    assert read_letter(encode(written), "d") == written
