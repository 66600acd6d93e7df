"""A certificate authority of our own, and the broker's certificate.

    DIR/ca.crt, DIR/ca/ca.key             made once
    DIR/mosquitto/server.crt, server.key  made again when names change or the end is near

Keys are of the curve P-256: every MQTT client knows it, and a Pi computes it in a millisecond.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from patchbay.access.directory import CA, MOSQUITTO, PUBLIC, Directory
from patchbay.errors import SettingsError

CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = f"{CA}/ca.key"
SERVER_CERTIFICATE: Final = f"{MOSQUITTO}/server.crt"
SERVER_KEY: Final = f"{MOSQUITTO}/server.key"

CA_DAYS: Final = 3650
"""Whoever replaces the authority has to reach every client."""

SERVER_DAYS: Final = 397
"""A little more than a year: made again once a year, or at each start of a compose file."""

RENEW_DAYS: Final = 30
"""A certificate that ends so soon is made anew."""

CLOCK_SKEW: Final = timedelta(days=1)
"""A Pi without a battery may start yesterday."""


class Authority:
    """Signs certificates."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def make(cls, now: datetime) -> Authority:
        """A new one, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Patchbay authority {now:%Y-%m-%d}")
        builder = (
            _builder(name, name, key, now, timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, directory: Directory) -> Authority:
        """The one of this directory. Raises SettingsError."""
        certificate, key = directory.read(CA_CERTIFICATE), directory.read(CA_KEY)
        try:
            loaded = serialization.load_pem_private_key(key.encode(), None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise ValueError("another kind of key")
            return cls(x509.load_pem_x509_certificate(certificate.encode()), loaded)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{directory.path / CA_KEY}: {error}") from error

    def write(self, directory: Directory) -> None:
        directory.write(CA_KEY, _key_pem(self._key))
        directory.write(CA_CERTIFICATE, pem(self.certificate), PUBLIC)

    def sign(
        self,
        names: Sequence[str],
        now: datetime,
        lifetime: timedelta = timedelta(days=SERVER_DAYS),
        *,
        server: bool = True,
    ) -> tuple[str, str]:
        """A certificate for these host names and addresses, and its key, as PEM.

        ``server``: for a server; else for a client, whose name is the first one.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        authority = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        certificate = (
            _builder(_name(names[0]), self.certificate.subject, key, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(map(_general, names)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority.value),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return pem(certificate), _key_pem(key)


def make_certificates(
    directory: Directory, names: Sequence[str], now: datetime | None = None
) -> list[str]:
    """Make the authority and the broker's certificate, where they are missing, about to end, or
    for other names. Returns the files that were written. Raises SettingsError."""
    moment = now or datetime.now(UTC)
    for name in names:
        _general(name)
    written = []
    if directory.has(CA_KEY):
        authority = Authority.read(directory)
    else:
        authority = Authority.make(moment)
        authority.write(directory)
        written += [CA_CERTIFICATE, CA_KEY]
    if _usable(directory, authority, names, moment):
        return written
    certificate, key = authority.sign(names, moment)
    directory.write(SERVER_KEY, key)
    directory.write(SERVER_CERTIFICATE, certificate, PUBLIC)
    return [*written, SERVER_CERTIFICATE, SERVER_KEY]


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _usable(
    directory: Directory, authority: Authority, names: Iterable[str], moment: datetime
) -> bool:
    """Is there a certificate for these names, by this authority, that does not end soon?"""
    if not (directory.has(SERVER_CERTIFICATE) and directory.has(SERVER_KEY)):
        return False
    try:
        found = x509.load_pem_x509_certificate(directory.read(SERVER_CERTIFICATE).encode())
        found.verify_directly_issued_by(authority.certificate)
        said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    if found.not_valid_after_utc < moment + timedelta(days=RENEW_DAYS):
        return False
    return set(said) == {_general(name) for name in names}


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not name or not name.isascii() or any(c.isspace() for c in name):
        raise SettingsError(f"{name!r}: no host name and no address")
    return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
