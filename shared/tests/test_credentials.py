"""User name, password and certificates of a client, and what is said of mistakes in them."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from patchbay import broker
from patchbay.access.certificates import Authority, make_certificates
from patchbay.access.directory import Directory
from patchbay.bus import Bus
from patchbay.bus.credentials import credentials, tls_context
from patchbay.errors import SettingsError
from patchbay.settings import BrokerSettings
from patchbay.testing import PATIENCE_S, Part, free_port
from patchbay.topics import Topics

UNIT = "locker-edge-pi1"


def test_without_a_word_of_them_a_client_is_anonymous() -> None:
    assert credentials(BrokerSettings(), UNIT) == (None, None)


def test_a_user_name_and_a_password_are_taken_as_they_are() -> None:
    assert credentials(BrokerSettings(username="ann", password="x"), UNIT) == ("ann", "x")


def test_who_has_a_password_and_no_user_name_is_known_by_the_client_id(tmp_path: Path) -> None:
    assert credentials(BrokerSettings(password="x"), UNIT) == (UNIT, "x")
    (tmp_path / UNIT).write_text("from a file\n")
    settings = BrokerSettings(password_file=f"{tmp_path}/{{user}}")
    assert credentials(settings, UNIT) == (UNIT, "from a file")


def test_a_password_that_was_changed_is_read_at_the_next_connect(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = BrokerSettings(username="ann", password_file=str(file))
    for password in ("one", "two"):
        file.write_text(password)
        assert credentials(settings, UNIT) == ("ann", password)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file or directory"), (b"", "is empty"), (b"\n ", "is empty"), (b"\xff", "no")],
)
def test_a_password_file_that_says_nothing_is_named(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        credentials(BrokerSettings(password_file=str(file)), UNIT)
    assert str(caught.value).startswith("[broker] password_file: ")
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def test_without_tls_there_is_no_context() -> None:
    assert tls_context(BrokerSettings()) is None


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, key: str) -> None:
    for content, said in [(None, "No such file"), ("no certificate", "")]:
        file = tmp_path / "a.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(SettingsError) as caught:
            tls_context(BrokerSettings(tls=True, **{key: str(file)}))  # type: ignore[arg-type]
        assert f"[broker] {key}" in str(caught.value)
        assert str(file) in str(caught.value)
        assert said in str(caught.value)


def test_a_key_with_a_passphrase_is_an_error_and_no_question(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make_certificates(directory, ["localhost"])
    key = load_pem_private_key((tmp_path / "mosquitto/server.key").read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    settings = BrokerSettings(
        tls=True, cert_file=str(tmp_path / "mosquitto/server.crt"), key_file=str(locked)
    )
    with pytest.raises(SettingsError, match=r"cert_file, key_file: .*locked\.key"):
        tls_context(settings)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[tuple[Part, Path]]:
    """A mosquitto that asks for a certificate of the client, and the directory of certificates."""
    directory = Directory(tmp_path / "secrets")
    make_certificates(directory, ["127.0.0.1"])
    certificate, key = Authority.read(directory).sign(
        ["ann"], datetime.datetime.now(datetime.UTC), server=False
    )
    directory.write("ann.pem", certificate + key)
    port, place = free_port(), directory.path
    (tmp_path / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"certfile {place}/mosquitto/server.crt\nkeyfile {place}/mosquitto/server.key\n"
        f"cafile {place}/ca.crt\nrequire_certificate true\n"
    )
    command = [broker.binary(), "-c", str(tmp_path / "mosquitto.conf")]
    part = Part("mosquitto", tmp_path, lambda: command, port)
    part.start()
    yield part, place
    part.stop()


async def test_a_broker_that_asks_for_a_certificate_is_shown_one(strict: tuple[Part, Path]) -> None:
    part, place = strict
    settings = BrokerSettings(
        port=part.port, tls=True, ca_file=f"{place}/ca.crt", cert_file=f"{place}/ann.pem"
    )
    async with Bus(settings, client_id="ann", topics=Topics(), announce=False) as bus:
        await bus.wait_connected(PATIENCE_S)
        assert await bus.publish("patchbay/x/y/state", b"") in (0, 0x10)


async def test_a_password_file_that_comes_later_is_waited_for(
    mosquitto: Part, tmp_path: Path
) -> None:
    """Set-up may still be at it when a container starts."""
    file = tmp_path / "password"
    settings = BrokerSettings(
        port=mosquitto.port, password_file=str(file), backoff_initial_s=0.05, backoff_max_s=0.1
    )
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    class Listener:
        def warning(self, _event: str, **fields: object) -> None:
            if not refused.done():
                refused.set_result(str(fields["why"]))

        def info(self, _event: str, **_fields: object) -> None:
            """Connected."""

    bus = Bus(settings, client_id="ann", topics=Topics(), announce=False)
    bus.log = Listener()
    async with bus:
        why = await asyncio.wait_for(refused, PATIENCE_S)
        assert why == f"[broker] password_file: {file}: No such file or directory"
        file.write_text("secret")
        await bus.wait_connected(PATIENCE_S)
