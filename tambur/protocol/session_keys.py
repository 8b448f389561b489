"""Session keys, with which a client continues the session of a lost connection. Section 7 of the protocol.

A key is signed, not stored: any node that has the app's secrets can check it. The broker
knows the rest, such as the use of a newer key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
import uuid
from collections.abc import Sequence
from typing import NamedTuple

KEYS_OF_CONNECTION = 2**20
"""The number of a session's next key grows by this with each resume, and by 1 with each fresh key."""

_FORM = struct.Struct(">16sQQQ")
_TAG_BYTES = 16
_KEY_LENGTH = -(-(_FORM.size + _TAG_BYTES) * 4 // 3)


class SessionKey(NamedTuple):
    """The content of a session key.

    Attributes:
        subscriber_id: the identity that the session keeps, a UUID in lower case.
        number: that of the key among those of its session; a later one has a higher number. Below 2^64.
        begun_ms: when the session began, in milliseconds since 1970.
        issued_ms: when the key was issued, in milliseconds since 1970.
    """

    subscriber_id: str
    number: int
    begun_ms: int
    issued_ms: int


class SessionKeys:
    """Signs and checks the session keys of one app.

    Parameters:
        api_key: of the app.
        app_id: of the app.
        secrets: those of the app, at least one. The first signs; a signature of any of them is right.
        realm: where keys are valid, such as the epoch of one process. Keys of another realm are wrong.
    """

    __slots__ = ("_keys",)

    def __init__(self, api_key: str, app_id: str, secrets: Sequence[str], *, realm: bytes = b"") -> None:
        # No name holds a NUL, so the fields cannot run into each other.
        purpose = f"tambur session key\0{api_key}\0{app_id}\0".encode() + realm
        self._keys = [hmac.digest(secret.encode(), purpose, "sha256") for secret in secrets]

    def sign(self, key: SessionKey) -> str:
        """Write a key as the text that the client keeps: characters of ``[A-Za-z0-9_-]``.

        Raises:
            ValueError: if the subscriber ID is not a UUID in lower case.
            struct.error: if a number is out of range.
        """
        identity = uuid.UUID(key.subscriber_id)
        if str(identity) != key.subscriber_id:
            raise ValueError(f"a subscriber ID must be a UUID in lower case, not {key.subscriber_id!r}")
        data = _FORM.pack(identity.bytes, key.number, key.begun_ms, key.issued_ms)
        tag = hmac.digest(self._keys[0], data, "sha256")[:_TAG_BYTES]
        return base64.urlsafe_b64encode(data + tag).rstrip(b"=").decode("ascii")

    def verify(self, text: str) -> SessionKey | None:
        """Read a key.

        Returns:
            The key's content, or ``None`` if :meth:`sign` has not made it for this app and realm. The
            comparison takes constant time. The caller checks that the key has not expired.
        """
        if len(text) != _KEY_LENGTH:
            return None
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            data = base64.b64decode(padded, b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return None
        if base64.urlsafe_b64encode(data) != padded:
            return None  # another spelling of the same bytes
        content, tag = data[: _FORM.size], data[_FORM.size :]
        # Every secret is tried, so that the time taken does not tell which of them was right.
        right = [
            hmac.compare_digest(hmac.digest(key, content, "sha256")[:_TAG_BYTES], tag) for key in self._keys
        ]
        if not any(right):
            return None
        identity, number, begun_ms, issued_ms = _FORM.unpack(content)
        return SessionKey(str(uuid.UUID(bytes=identity)), number, begun_ms, issued_ms)
