"""A password in a file of its own, as set-up and container engines put it there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from patchbay.errors import SettingsError

USER: Final = "{user}"
"""In the path of a password file: stands for the user name."""


def read_secret(path: str, user: str, key: str) -> str:
    """The password of ``user``: the file's text without white space around it.

    ``path`` may contain ``{user}``. Raises SettingsError that names ``key``, the setting.
    """
    path = path.replace(USER, user)
    try:
        password = Path(path).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise SettingsError(f"{key}: {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{key}: {path}: no text: {error}") from error
    if not password:
        raise SettingsError(f"{key}: {path} is empty")
    return password
