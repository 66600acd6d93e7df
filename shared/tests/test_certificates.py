"""The authority and the broker's certificate, as OpenSSL sees them."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from patchbay.access.certificates import Authority, make_certificates
from patchbay.access.directory import Directory
from patchbay.errors import SettingsError

NAMES = ["broker.local", "127.0.0.1", "::1"]
MADE = ["ca.crt", "ca/ca.key", "mosquitto/server.crt", "mosquitto/server.key"]


def server(directory: Directory) -> x509.Certificate:
    return x509.load_pem_x509_certificate(directory.read("mosquitto/server.crt").encode())


def handshake(directory: Directory, name: str, trusted: Directory | None = None) -> None:
    """A client that trusts this authority meets a server with this certificate."""
    place = directory.path / "mosquitto"
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(place / "server.crt", place / "server.key")
    trusting = ssl.create_default_context(cafile=str((trusted or directory).path / "ca.crt"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    peer = serving.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, peer, client, peer):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_knows_the_authority_trusts_each_name(tmp_path: Path, name: str) -> None:
    directory = Directory(tmp_path)
    assert make_certificates(directory, NAMES) == MADE
    handshake(directory, name)


def test_no_other_name_is_trusted(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make_certificates(directory, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(directory, "other.local")


def test_no_other_authority_is_trusted(tmp_path: Path) -> None:
    directory, other = Directory(tmp_path / "one"), Directory(tmp_path / "other")
    make_certificates(directory, NAMES)
    make_certificates(other, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(directory, "broker.local", trusted=other)


def test_keys_are_secret_and_certificates_are_not(tmp_path: Path) -> None:
    make_certificates(Directory(tmp_path), NAMES)
    modes = {one: stat.S_IMODE((tmp_path / one).stat().st_mode) for one in MADE}
    assert modes == {
        "ca.crt": 0o644,
        "ca/ca.key": 0o600,
        "mosquitto/server.crt": 0o644,
        "mosquitto/server.key": 0o600,
    }


def test_said_again_nothing_is_made(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make_certificates(directory, NAMES)
    assert make_certificates(directory, list(reversed(NAMES))) == []


def test_for_other_names_the_same_authority_signs_again(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make_certificates(directory, NAMES)
    authority = directory.read("ca.crt")
    assert make_certificates(directory, [*NAMES, "other.local"]) == MADE[2:]
    assert directory.read("ca.crt") == authority
    handshake(directory, "other.local")


def test_a_certificate_that_ends_within_a_month_is_made_anew(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    now = datetime.now(UTC)
    make_certificates(directory, NAMES, now - timedelta(days=397 - 31))
    first = server(directory).serial_number
    make_certificates(directory, NAMES, now)
    assert server(directory).serial_number == first
    assert make_certificates(directory, NAMES, now + timedelta(days=2)) == MADE[2:]
    assert server(directory).serial_number != first


@pytest.mark.parametrize("name", ["", "a b", "bücher"])
def test_what_is_no_name_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="no host name and no address"):
        make_certificates(Directory(tmp_path), ["localhost", name])
    assert not any(tmp_path.iterdir())


def test_a_key_that_is_damaged_is_named(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make_certificates(directory, NAMES)
    directory.write("ca/ca.key", "-----BEGIN NOTHING-----\n")
    with pytest.raises(SettingsError, match=r"ca\.key"):
        make_certificates(directory, NAMES)


def test_a_certificate_of_a_client_is_for_a_client_only(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make_certificates(directory, NAMES)
    certificate, _ = Authority.read(directory).sign(["ann"], datetime.now(UTC), server=False)
    found = x509.load_pem_x509_certificate(certificate.encode())
    [purpose] = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert purpose == x509.ExtendedKeyUsageOID.CLIENT_AUTH
