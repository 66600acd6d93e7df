"""A bus client for a command: of the `up` that runs here, or of the broker in the settings."""

from __future__ import annotations

from pathlib import Path

import msgspec

from patchbay.bus import Bus
from patchbay.bus.person import person
from patchbay.cli.environment import environment, settings, state_dir
from patchbay.topics import Topics
from patchbay.up.record import running


def make_bus(purpose: str, state: Path | None = None, config: Path | None = None) -> Bus:
    """A client, not started, that announces no status. Raises SettingsError.

    Two commands never throw each other out: see `patchbay.bus.person`.
    """
    read = settings(environment(state, config))
    broker, port, root = read.broker, read.broker_port, read.runtime.root_topic
    record = running(state_dir(read))
    if record is not None:
        broker = msgspec.structs.replace(broker, host=record.mqtt_host)
        port, root = record.mqtt_port, record.root_topic
    broker, client_id = person(broker, purpose)
    return Bus(
        broker,
        client_id=client_id,
        topics=Topics(root),
        announce=False,
        port=port,
    )
