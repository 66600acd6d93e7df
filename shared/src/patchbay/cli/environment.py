"""The environment that a command gives to what it starts, and the settings that follow from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from patchbay.settings import FILE_VARIABLE, Config


def environment(
    state: Path | None = None,
    config: Path | None = None,
    *,
    port_offset: int | None = None,
    demo: bool = False,
) -> dict[str, str]:
    """Ours, with the options of a command line on top. Paths are made absolute."""
    environ = dict(os.environ)
    if config is not None:
        environ[FILE_VARIABLE] = str(config.resolve())
    if state is not None:
        environ["PATCHBAY_RUNTIME__STATE_DIR"] = str(state.resolve())
    if port_offset is not None:
        environ["PATCHBAY_RUNTIME__PORT_OFFSET"] = str(port_offset)
    if demo:
        environ["PATCHBAY_RUNTIME__DEMO"] = "true"
    return environ


def settings(environ: Mapping[str, str]) -> Config:
    """The settings of such an environment. Raises SettingsError."""
    from patchbay.services import discover

    return Config.read(None, environ, discover())


def state_dir(config: Config) -> Path:
    """The state directory, absolute."""
    return Path(config.runtime.state_dir).resolve()
