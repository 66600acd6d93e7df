"""Passwords, and mosquitto's hash of one: PBKDF2 with SHA-512.

name:$7$<iterations>$<salt, base64>$<digest, base64>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

SALT_BYTES = 12
"""Mosquitto 2.0 reads no other length."""

ITERATIONS = 101
"""Mosquitto's own. More would protect passwords that people think of; ours are drawn, 192 bits."""

DIGEST_BYTES = 64


def draw() -> str:
    """A password that nobody guesses: 32 letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(24)


def hashed(password: str) -> str:
    """What mosquitto's password file says of this password, with a fresh salt."""
    return _hashed(password, secrets.token_bytes(SALT_BYTES), ITERATIONS)


def fits(password: str, hashed: str) -> bool:
    """Is ``hashed`` (of a password file) a hash of this password?"""
    try:
        empty, kind, iterations, salt, _ = hashed.split("$")
        again = _hashed(password, base64.b64decode(salt, validate=True), int(iterations))
    except (ValueError, binascii.Error):
        return False
    return (empty, kind) == ("", "7") and hmac.compare_digest(again, hashed)


def _hashed(password: str, salt: bytes, iterations: int) -> str:
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, DIGEST_BYTES)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
