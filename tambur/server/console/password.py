"""Hashes of the console's password: ``scrypt$N$R$P$SALT$HASH``, the last two in base64."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import NamedTuple

MIN_PASSWORD_BYTES = 12

_N, _R, _P = 2**14, 8, 5
_SALT_BYTES, _HASH_BYTES = 16, 32
_MAX_HASH_CHARACTERS = 200
_MAX_MEMORY_BYTES = 256 * 1024 * 1024


class PasswordHash(NamedTuple):
    """A parsed hash; the fields are the parameters and the result of scrypt (RFC 7914)."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def matches(self, password: bytes) -> bool:
        """Whether this is the hash of a password. Takes about a tenth of a second."""
        return hmac.compare_digest(_digest(password, self.salt, self.n, self.r, self.p), self.digest)


def hash_password(password: str) -> str:
    """Make the hash of a password, for ``console_password``.

    Raises:
        ValueError: if the password has less than ``MIN_PASSWORD_BYTES`` of UTF-8.
    """
    data = password.encode()
    if len(data) < MIN_PASSWORD_BYTES:
        raise ValueError(f"the password must have at least {MIN_PASSWORD_BYTES} bytes, not {len(data)}")
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _digest(data, salt, _N, _R, _P)
    return f"scrypt${_N}${_R}${_P}${_encode(salt)}${_encode(digest)}"


def parse_hash(text: str) -> PasswordHash:
    """Parse a hash from :func:`hash_password`.

    Raises:
        ValueError: if the text is not such a hash, or checking it would take too much memory.
    """
    parts = text.split("$") if len(text) <= _MAX_HASH_CHARACTERS else []
    try:
        name, n, r, p, salt, digest = parts
        parsed = PasswordHash(int(n), int(r), int(p), _decode(salt), _decode(digest))
    except (ValueError, binascii.Error):
        raise ValueError("is not a hash made by 'tambur hash-password'") from None
    is_power_of_two = parsed.n > 1 and parsed.n & (parsed.n - 1) == 0
    is_affordable = (
        parsed.r > 0 and 0 < parsed.p <= 64 and 128 * parsed.n * parsed.r <= _MAX_MEMORY_BYTES // 2
    )
    if name != "scrypt" or not is_power_of_two or not is_affordable or len(parsed.digest) != _HASH_BYTES:
        raise ValueError("is not a hash made by 'tambur hash-password'")
    return parsed


def _digest(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY_BYTES, dklen=_HASH_BYTES)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
