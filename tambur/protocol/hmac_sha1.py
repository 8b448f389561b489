"""HMAC-SHA1 with one key for many texts: what signatures and mode tokens are made of."""

from __future__ import annotations

import hashlib

_BLOCK_BYTES = 64  # of SHA-1


class HmacSha1:
    """The two hashes of RFC 2104, copied for each text.

    The key, and what every text begins with, are hashed once: at half the price of an ``hmac`` object's copy,
    and a third of a new one's.

    Parameters:
        prefix: what every text begins with.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, prefix: bytes = b"") -> None:
        if len(key) > _BLOCK_BYTES:
            key = hashlib.sha1(key, usedforsecurity=False).digest()
        key = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in key) + prefix, usedforsecurity=False)
        self._outer = hashlib.sha1(bytes(byte ^ 0x5C for byte in key), usedforsecurity=False)

    def hash(self, text: str) -> hashlib._Hash:
        """The hash of a text, whose digest is the HMAC."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer
