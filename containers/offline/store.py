"""Starts SecantusDB as the entrypoint of the image mongo starts mongod.

With ``MONGO_INITDB_ROOT_USERNAME`` and ``MONGO_INITDB_ROOT_PASSWORD`` (or ``..._FILE``) a new data
directory gets that user first, and a password is asked for from then on. ``mongod`` and its options
are what compose.yaml says to the real one; of those, the size of the cache is understood.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

DATA = Path("/data/db")
PORT = 27017
DEADLINE_S = 60.0


def main() -> None:
    """Make the first user if there is none yet, then become the store."""
    user, password = _given("USERNAME"), _given("PASSWORD")
    if user and password and not any(DATA.iterdir()):
        _make_user(user, password)
    auth = ["--auth"] if user and password else []
    everywhere = "0.0.0.0"  # noqa: S104  of a network that nothing else is on
    argv = [*_command(everywhere), "--cache-size", _cache_size(sys.argv[1:]), *auth]
    os.execv(argv[0], argv)  # noqa: S606  no shell is what we want


def _given(name: str) -> str:
    variable = f"MONGO_INITDB_ROOT_{name}"
    file = os.environ.get(f"{variable}_FILE")
    return Path(file).read_text().strip() if file else os.environ.get(variable, "")


def _command(host: str) -> list[str]:
    program = "/opt/store/bin/secantusd-py"
    return [
        *(sys.executable, program, "--host", host, "--port", str(PORT)),
        *("--storage-path", str(DATA), "--log-level", "WARNING", "--standalone"),
        *("--oplog-max-entries", "1000"),
    ]


def _cache_size(arguments: list[str]) -> str:
    """``cache_size=64M`` anywhere in the arguments."""
    found = re.search(r"cache_size=(\d+[KMG])", " ".join(arguments))
    return found.group(1) if found else "256M"


def _make_user(user: str, password: str) -> None:
    """Start without a password on loopback, make the user, and stop."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    server = subprocess.Popen(_command("127.0.0.1"))
    deadline = time.monotonic() + DEADLINE_S
    try:
        with MongoClient(f"mongodb://127.0.0.1:{PORT}", serverSelectionTimeoutMS=1000) as client:
            while True:
                try:
                    client.admin.command("createUser", user, pwd=password, roles=["root"])
                    return
                except PyMongoError:
                    if time.monotonic() > deadline or server.poll() is not None:
                        raise
                    time.sleep(0.1)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
