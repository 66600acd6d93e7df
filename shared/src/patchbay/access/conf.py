"""Mosquitto's configuration for a broker that nobody gets into without a password."""

from __future__ import annotations

from pathlib import Path

from patchbay.access.directory import MOSQUITTO, PUBLIC, Directory
from patchbay.broker import QUEUED_BYTES, SECURE, read_templates, render

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
) -> Path:
    """Write ``DIR/mosquitto/mosquitto.conf``. Returns its path.

    ``data``: where mosquitto keeps its file; ``user``: who it becomes when root starts it; ``at``:
    the path by which mosquitto knows ``DIR/mosquitto``, if that is another one, as in a container;
    ``queued_bytes``: what may wait for one client, which has to fit into its memory.
    Raises SettingsError.
    """
    values = {
        "DIR": str(at or directory.path / MOSQUITTO),
        "TLS_PORT": str(tls_port),
        "PLAIN_PORT": str(plain_port),
        "STATE": f"{data}/",
        "USER": user,
        "QUEUED_BYTES": str(queued_bytes),
    }
    directory.write(CONFIGURATION, render(read_templates(*SECURE), values), PUBLIC)
    return directory.path / CONFIGURATION
