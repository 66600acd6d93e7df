"""The directory that keeps what is secret, and who may read which file of it.

    DIR/
      units/<instance>                  a unit's password at the broker
      operators/<name>, viewers/<name>  a person's
      store/<service>, store/admin      at the store
      store/users.js                    what mongosh reads
      mosquitto/passwords, acl          what mosquitto reads
      mosquitto/ca.crt, server.*        the broker's certificate
      ca.crt, ca/ca.key                 the authority that signed it

What is there stays as it is: the names of the files are the list of users. Files have the mode
0600, but for certificates; directories can be passed through and not listed (0711), since each file
may have an owner of its own.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from patchbay.access.passwords import draw
from patchbay.durable import make_directory, put_in_place
from patchbay.errors import SettingsError

UNITS: Final = "units"
STORE: Final = "store"
MOSQUITTO: Final = "mosquitto"
CA: Final = "ca"

ADMIN: Final = "admin"
"""The user of the store who makes the others."""

SECRET: Final = 0o600
PUBLIC: Final = 0o644
PASSAGE: Final = 0o711

_NAME = re.compile(r"^[a-z0-9_-]{1,64}$")


class Owner(NamedTuple):
    """Numeric: the users may be those of other containers."""

    uid: int
    gid: int

    @classmethod
    def parse(cls, text: str) -> Owner:
        """``10001``, ``10001:10001``, or the name of a user of this machine. Without a group:
        the same number, or the user's own."""
        uid, _, gid = text.partition(":")
        try:
            if text and not text[0].isdigit():
                user = pwd.getpwnam(text)
                return cls(user.pw_uid, user.pw_gid)
            return cls(int(uid), int(gid or uid))
        except (ValueError, KeyError):
            raise SettingsError(f"{text}: no owner: UID, UID:GID or a user's name") from None


class Directory:
    """Writes and reads its files. ``owners``: file or directory in it, ``units/locker-edge-pi1`` or
    ``mosquitto`` -> who owns it. Others stay whose they are; new ones belong to us. Every method
    raises SettingsError."""

    def __init__(self, path: Path, owners: Mapping[str, Owner] | None = None) -> None:
        self.path = path.resolve()
        self._owners = dict(owners or {})

    def names(self, kind: str) -> list[str]:
        """The users of a kind: ``units``, ``operators``, ``viewers``, ``store``; sorted."""
        place = self.path / kind
        try:
            return sorted(one.name for one in place.iterdir() if _NAME.match(one.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed(place, error) from error

    def add(self, kind: str, name: str) -> bool:
        """Make a password for this user, unless there is one. True if it is new."""
        if not _NAME.match(name):
            raise SettingsError(f"{name!r}: a name has 1 to 64 of a-z, 0-9, _ and -")
        file = f"{kind}/{name}"
        new = not (self.path / file).exists()
        if new:
            self.write(file, f"{draw()}\n")
        else:
            self._belongs(self.path / file, SECRET, file)
        return new

    def password(self, kind: str, name: str) -> str:
        """The password of this user."""
        return self.read(f"{kind}/{name}").strip()

    def remove(self, kind: str, name: str) -> bool:
        """Forget this user. False if there was none."""
        path = self.path / kind / name
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _failed(path, error) from error
        return True

    def read(self, file: str) -> str:
        """The text of a file."""
        path = self.path / file
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _failed(path, error) from error

    def has(self, file: str) -> bool:
        """Is there such a file?"""
        return (self.path / file).exists()

    def write(self, file: str, text: str, mode: int = SECRET) -> None:
        """Replace a file whole: who reads it meanwhile sees the old one, nobody a part."""
        path = self.path / file
        fresh = path.with_name(f".{path.name}.new")
        try:
            self._pass_through(path.parent)
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                out.write(text)
            self._belongs(fresh, mode, file, _owner_of(path))
            put_in_place(fresh, path)
        except OSError as error:
            raise _failed(path, error) from error

    def _pass_through(self, place: Path) -> None:
        make_directory(place)
        for one in {self.path, place}:
            one.chmod(PASSAGE)

    def _belongs(self, path: Path, mode: int, file: str, before: Owner | None = None) -> None:
        owner = self._owners.get(file) or self._owners.get(file.partition("/")[0]) or before
        try:
            path.chmod(mode)
            if owner is not None:
                os.chown(path, *owner)
        except OSError as error:
            raise _failed(path, error) from error


def _owner_of(path: Path) -> Owner | None:
    """Who owns a file that is there, if that is not us."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Owner(found.st_uid, found.st_gid) if found.st_uid != os.geteuid() else None


def _failed(path: Path, error: Exception) -> SettingsError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SettingsError(f"{path}: {why}")
