"""Mosquitto's configuration for a broker with passwords, read by mosquitto itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay import broker
from patchbay.access.certificates import make_certificates
from patchbay.access.conf import write_configuration
from patchbay.access.directory import Directory
from patchbay.access.users import Wanted, make_users
from patchbay.testing import Part, free_port, until


def addresses(port: int) -> list[str]:
    """On which addresses somebody listens on this port, as the kernel says (hexadecimal)."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            host, _, number = fields[1].partition(":")
            if fields[3] == "0A" and int(number, 16) == port:
                found.append(host)
    return sorted(found)


async def test_the_plain_listener_is_on_loopback_only_and_that_with_tls_everywhere(
    tmp_path: Path,
) -> None:
    directory = Directory(tmp_path / "secrets")
    make_users(directory, {}, Wanted(viewers=("ann",)))
    make_certificates(directory, ["localhost"])
    tls, plain = free_port(), free_port()
    path = write_configuration(directory, tmp_path, tls_port=tls, plain_port=plain, user="root")
    part = Part("mosquitto", tmp_path, lambda: [broker.binary(), "-c", str(path)], tls)
    part.start()
    try:
        await until(lambda: addresses(plain))  # one listener after the other
        assert addresses(plain) == ["0100007F"]
        assert "00000000" in addresses(tls)
    finally:
        part.stop()


def test_nobody_is_anonymous_and_ids_are_bound_on_every_listener(tmp_path: Path) -> None:
    text = write_configuration(Directory(tmp_path), Path("/data")).read_text()
    assert "allow_anonymous false" in text
    assert "allow_anonymous true" not in text
    assert text.count("listener ") == text.count("use_username_as_clientid true") == 2
    assert "persistence_location /data/\n" in text
    assert "max_queued_bytes 16777216\n" in text
    assert "memory_limit 268435456\n" in text
    assert "@" not in text


def test_what_waits_for_one_client_fits_into_the_memory_that_there_is(tmp_path: Path) -> None:
    path = write_configuration(Directory(tmp_path), Path("/data"), queued_bytes=1000, memory=5000)
    text = path.read_text()
    assert "max_queued_bytes 1000\n" in text
    assert "memory_limit 5000\n" in text


@pytest.mark.parametrize("at", [None, Path("/secrets/mosquitto")])
def test_the_files_are_where_mosquitto_will_see_them(tmp_path: Path, at: Path | None) -> None:
    text = write_configuration(Directory(tmp_path), Path("/data"), at=at).read_text()
    place = at or tmp_path / "mosquitto"
    assert f"password_file {place}/passwords\nacl_file {place}/acl\n" in text
    assert f"certfile {place}/server.crt\nkeyfile {place}/server.key\n" in text
