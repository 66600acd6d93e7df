"""Who we are to the broker, and whom we take for it: user name, password, certificates."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from patchbay.errors import SettingsError
from patchbay.secret_file import read_secret
from patchbay.settings import BrokerSettings


class Credentials(NamedTuple):
    """What a CONNECT carries. ``username`` None: anonymous."""

    username: str | None
    password: str | None


def credentials(settings: BrokerSettings, client_id: str) -> Credentials:
    """User name and password of the client with this id, read anew: a password may be changed.

    Raises SettingsError for a password file that cannot be read; the text names it.
    """
    password = settings.password
    username = settings.username
    if username is None and (password is not None or settings.password_file is not None):
        username = client_id
    if settings.password_file is not None:
        password = read_secret(settings.password_file, username or "", "[broker] password_file")
    return Credentials(username, password)


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """What checks the broker's certificate and name, and shows ours; None without TLS.

    Raises SettingsError for a file that cannot be used; the text names its key.
    """
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise _unusable("ca_file", settings.ca_file, error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file, _no_passphrase)
        except OSError as error:
            files = " and ".join(filter(None, (settings.cert_file, settings.key_file)))
            raise _unusable("cert_file, key_file", files, error) from error
    return context


def _no_passphrase() -> str:
    """OpenSSL would ask at the terminal."""
    return ""


def _unusable(key: str, path: str | None, error: OSError) -> SettingsError:
    return SettingsError(f"[broker] {key}: {path}: {error.strerror or error}")
