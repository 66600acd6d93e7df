"""Mosquitto's configuration for a broker that nobody gets into without a password."""

from __future__ import annotations

from pathlib import Path

from patchbay.access.directory import MOSQUITTO, PUBLIC, Directory
from patchbay.broker import MEMORY, QUEUED_BYTES, SECURE, read_templates, render

CONFIGURATION = f"{MOSQUITTO}/mosquitto.conf"


def write_configuration(
    directory: Directory,
    data: Path,
    *,
    tls_port: int = 8883,
    plain_port: int = 1883,
    user: str = MOSQUITTO,
    at: Path | None = None,
    queued_bytes: int = QUEUED_BYTES,
    memory: int = MEMORY,
) -> Path:
    """Write ``DIR/mosquitto/mosquitto.conf``. Returns its path.

    ``data``: where mosquitto keeps its file; ``user``: who it becomes when root starts it; ``at``:
    the path by which mosquitto knows ``DIR/mosquitto``, if that is another one, as in a container;
    ``queued_bytes``: what may wait for one client; ``memory``: what the broker may take for all.
    Raises SettingsError.
    """
    values = {
        "DIR": str(at or directory.path / MOSQUITTO),
        "TLS_PORT": str(tls_port),
        "PLAIN_PORT": str(plain_port),
        "STATE": f"{data}/",
        "USER": user,
        "QUEUED_BYTES": str(queued_bytes),
        "MEMORY": str(memory),
    }
    directory.write(CONFIGURATION, render(read_templates(*SECURE), values), PUBLIC)
    return directory.path / CONFIGURATION
