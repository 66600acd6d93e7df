"""Online and offline, as a watcher on a real Mosquitto hears them."""

from __future__ import annotations

from patchbay.testing import MakeBus, Part, Seen, pub, until


async def test_status_is_online_when_ready_and_offline_after_a_clean_exit_or_a_cut(
    make_bus: MakeBus,
) -> None:
    watcher = make_bus("w")
    seen = Seen()
    watcher.subscribe("patchbay/status/u", seen.take)
    watcher.start()
    await watcher.wait_connected(5)

    bus = make_bus("u", announce=True)
    bus.start()
    await bus.wait_connected(5)
    assert seen == []
    await bus.set_ready()
    await until(lambda: seen.payloads == [b"online"])
    await bus.stop()
    await until(lambda: seen.payloads == [b"online", b"offline"])

    cut = make_bus("u", announce=True)
    cut.start()
    await cut.set_ready()
    await cut.wait_online(5)
    assert cut._connection is not None
    cut._connection.abort("cut by the test")
    await until(lambda: seen.payloads[3:] == [b"offline", b"online"])


async def test_a_unit_corrects_its_own_status(make_bus: MakeBus, mosquitto: Part) -> None:
    bus = make_bus("u", announce=True)
    bus.start()
    await bus.set_ready()
    await bus.wait_online(5)
    watcher = make_bus("w")
    seen = Seen()
    watcher.subscribe("patchbay/status/u", seen.take)
    watcher.start()
    await until(lambda: seen.payloads == [b"online"])
    pub(mosquitto, "patchbay/status/u", "offline", "-r", "-q", "1")
    await until(lambda: seen.payloads == [b"online", b"offline", b"online"])


async def test_online_is_said_again_for_who_must_hear_it_live_but_not_by_who_is_not_online(
    make_bus: MakeBus,
) -> None:
    watcher = make_bus("w")
    seen = Seen()
    watcher.subscribe("patchbay/status/u", seen.take)
    watcher.start()
    await watcher.wait_connected(5)
    bus = make_bus("u", announce=True)
    bus.start()
    await bus.wait_connected(5)
    bus.repeat_online()
    await bus.set_ready()
    await bus.wait_online(5)
    bus.repeat_online()
    await until(lambda: seen.payloads == [b"online", b"online"])
    await bus.stop()
    bus.repeat_online()
    await until(lambda: seen.payloads == [b"online", b"online", b"offline"])


async def test_who_does_not_announce_itself_is_online_without_a_word(make_bus: MakeBus) -> None:
    watcher = make_bus("w")
    seen = Seen()
    watcher.subscribe("patchbay/status/#", seen.take)
    watcher.start()
    await watcher.wait_connected(5)
    quiet = make_bus("quiet")
    quiet.start()
    await quiet.set_ready()
    await quiet.wait_online(5)
    quiet.repeat_online()
    await quiet.stop()
    loud = make_bus("loud", announce=True)
    loud.start()
    await loud.set_ready()
    await until(lambda: len(seen) > 0)
    assert [message.topic for message in seen] == ["patchbay/status/loud"]
