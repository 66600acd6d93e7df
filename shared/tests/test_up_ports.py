from __future__ import annotations

import socket

import pytest

from patchbay.errors import Unavailable
from patchbay.testing import free_port
from patchbay.up.plan import Port
from patchbay.up.ports import accepts, need_free


def test_free_ports_are_no_obstacle_and_accept_nobody() -> None:
    port = Port("locker", "[locker] port", "127.0.0.1", free_port())
    need_free([port])
    assert not accepts(port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_is_named_with_its_setting(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = Port("locker", "[locker] port", host, taken.getsockname()[1])
        with pytest.raises(Unavailable, match=r"port \d+ \(locker\) is in use.*\[locker\] port"):
            need_free([port])
        assert accepts(port)


def test_an_address_that_is_not_ours_is_named() -> None:
    port = Port("locker", "[locker] port", "203.0.113.1", free_port())
    with pytest.raises(Unavailable, match=r"cannot be listened on at 203\.0\.113\.1"):
        need_free([port])
