"""Positions: how far a client has read a stream, as only the server understands it. Protocol, section 7.

The shard of a stream numbers everything that is published; such a number is a *place*. A position is a
place, bound to one app, stream and epoch by a keyed hash. The hash masks the place, too, so a position
shows neither how much was published nor when.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

POSITION_LENGTH = 22
"""The length of every position, in characters of ``[A-Za-z0-9._]``."""

# A command line would take a position that begins with "-" for an option.
_ALTERNATIVES = b"._"

_TAG_BYTES = _PLACE_BYTES = 8


class Positions:
    """Makes and reads the positions of one app.

    Parameters:
        api_key: of the app.
        app_id: of the app.
        secrets: those of the app, at least one. The first makes positions; each of them reads its own.
    """

    __slots__ = ("_keys",)

    def __init__(self, api_key: str, app_id: str, secrets: Sequence[str]) -> None:
        # No name holds a NUL, so the fields cannot run into each other.
        purpose = f"tambur position\0{api_key}\0{app_id}".encode()
        self._keys = [hmac.digest(secret.encode(), purpose, "sha256") for secret in secrets]

    def encode(self, stream: str, epoch: bytes, place: int) -> str:
        """Make the position of a place.

        Parameters:
            stream: the name of the log that the place is in.
            epoch: of the shard, 1 to 64 bytes.
            place: 0 to 2^64 - 1.

        Returns:
            The same text for the same arguments, whichever node makes it.
        """
        key = self._keys[0]
        tag = _tag(key, stream, epoch, place)
        return _text(tag + (place ^ _mask(key, tag)).to_bytes(_PLACE_BYTES, "big"))

    def decode(self, stream: str, epoch: bytes, position: str) -> int | None:
        """Read a position.

        Returns:
            The place, or ``None`` if :meth:`encode` has not made the position for this stream and epoch.
        """
        if len(position) != POSITION_LENGTH:
            return None
        try:
            data = base64.b64decode(position.encode("ascii") + b"==", _ALTERNATIVES, validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return None
        if _text(data) != position:
            return None  # another spelling of the same bytes
        tag, masked = data[:_TAG_BYTES], data[_TAG_BYTES:]
        for key in self._keys:
            place = int.from_bytes(masked, "big") ^ _mask(key, tag)
            if hmac.compare_digest(_tag(key, stream, epoch, place), tag):
                return place
        return None


def _tag(key: bytes, stream: str, epoch: bytes, place: int) -> bytes:
    # All but the last field have a known length, so the fields cannot run into each other.
    scope = b"%c%s%s%s" % (len(epoch), epoch, place.to_bytes(_PLACE_BYTES, "big"), stream.encode())
    return hashlib.blake2b(scope, digest_size=_TAG_BYTES, key=key, person=b"tag").digest()


def _text(data: bytes) -> str:
    return base64.b64encode(data, _ALTERNATIVES)[:POSITION_LENGTH].decode("ascii")


def _mask(key: bytes, tag: bytes) -> int:
    digest = hashlib.blake2b(tag, digest_size=_PLACE_BYTES, key=key, person=b"mask").digest()
    return int.from_bytes(digest, "big")
