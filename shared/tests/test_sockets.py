"""What we ask of the kernel."""

from __future__ import annotations

import errno
import resource
import socket
import subprocess
import sys

import pytest

from patchbay.sockets import notice_power_cuts, peer_address, why_not_listening
from patchbay.testing import PATIENCE_S

ALLOW = """
import resource, sys
from patchbay import log
from patchbay.sockets import allow_connections
log.configure("info", "json", sys.stdout)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
print(allow_connections(1000, log.get_logger("test")))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def allowed(hard: int) -> list[str]:
    """What a process of its own says that may have so many open files at most."""
    done = subprocess.run(
        [sys.executable, "-c", ALLOW, str(hard)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return done.stdout.splitlines()


def test_the_limit_of_open_files_is_raised_for_the_connections_that_are_wanted() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard == resource.RLIM_INFINITY or hard >= 2000
    assert allowed(2000) == ["1000", "1064"]


def test_fewer_connections_than_wanted_are_said() -> None:
    warning, connections, files = allowed(500)
    assert '"fewer connections than wanted: open files"' in warning
    assert '"wanted": 1000, "allowed": 436' in warning
    assert (connections, files) == ("436", "500")


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("10.0.0.7", 40112), "10.0.0.7:40112"),
        (("fe80::1", 40112, 0, 2), "[fe80::1]:40112"),
        (None, "unknown"),
        ("", "unknown"),
    ],
)
def test_a_peer_is_named_as_people_write_it(name: object, address: str) -> None:
    assert peer_address(name) == address


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EADDRINUSE, "x"), "the port is in use"),
        (OSError(errno.EACCES, "x"), "Permission denied"),
        (OSError("a name that is none"), "a name that is none"),
    ],
)
def test_why_nobody_can_listen_is_one_line(error: OSError, reason: str) -> None:
    assert why_not_listening("h", 1, error) == f"cannot listen on h:1: {reason}"


def test_a_peer_without_power_is_noticed_within_a_minute_and_a_slow_one_is_left() -> None:
    with socket.socket() as sock:
        notice_power_cuts(sock)
        asked = {
            option: sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        }
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert list(asked.values()) == [30, 10, 3]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
