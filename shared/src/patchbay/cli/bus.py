"""A bus client for a command: of the `up` that runs here, or of the broker in the settings."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from patchbay.bus import Bus
from patchbay.cli.environment import environment, settings, state_dir
from patchbay.topics import Topics
from patchbay.up.record import running


def make_bus(purpose: str, state: Path | None = None, config: Path | None = None) -> Bus:
    """A client, not started, that announces no status. Raises SettingsError.

    Its id is ``patchbay-<purpose>-<pid>``, so that two commands never throw each other out.
    """
    read = settings(environment(state, config))
    broker, port, root = read.broker, read.broker_port, read.runtime.root_topic
    record = running(state_dir(read))
    if record is not None:
        broker = msgspec.structs.replace(broker, host=record.mqtt_host)
        port, root = record.mqtt_port, record.root_topic
    return Bus(
        broker,
        client_id=f"patchbay-{purpose}-{os.getpid()}",
        topics=Topics(root),
        announce=False,
        port=port,
    )
