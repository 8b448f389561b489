"""The signature of webhooks: section 10 of the protocol, after the Standard Webhooks specification."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

JOINED = "user.joined"
LEFT = "user.left"
TYPES = (JOINED, LEFT)

TOLERANCE_S = 300
"""How far a request's timestamp may be from the receiver's clock, in seconds."""

MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
"""The size of the secrets that a server accepts, as the specification wants it."""

SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix

_SIGNATURE_PREFIX = "v1,"


def decode_secret(secret: str) -> bytes:
    """Read a secret.

    Returns:
        The key of the signatures.

    Raises:
        ValueError: with the rule that it breaks, and without the secret.
    """
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        # Some services write it without padding.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not key:
        raise ValueError(f"must be {SECRET_PREFIX!r} and some bytes in base64")
    return key


def sign(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``.

    Parameters:
        key: from :func:`decode_secret`.
        webhook_id: the value of ``webhook-id``.
        timestamp: the value of ``webhook-timestamp``, in seconds since 1970.
    """
    # A framework may have decoded a header that is not UTF-8 to lone surrogates.
    signed = b".".join((webhook_id.encode("utf-8", "surrogatepass"), str(timestamp).encode(), body))
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return _SIGNATURE_PREFIX + base64.b64encode(digest).decode()


def is_signed(signatures: str, key: bytes, webhook_id: str, timestamp: int, body: bytes) -> bool:
    """Whether a list of signatures, separated by spaces, has that of the request."""
    wanted = sign(key, webhook_id, timestamp, body).encode()
    given = signatures.encode("utf-8", "surrogatepass").split(b" ")
    return any(hmac.compare_digest(wanted, found) for found in given)


def make_headers(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request; the parameters are those of :func:`sign`."""
    return {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(key, webhook_id, timestamp, body),
    }


def make_id(type_: str, version: int, *names: str) -> str:
    """The value of ``webhook-id``, which is the same for each attempt.

    Parameters:
        version: that of the event.
        names: what else tells the event from those of the same version.
    """
    digest = hashlib.sha256("\n".join((type_, str(version), *names)).encode()).hexdigest()
    return f"msg_{version}_{digest[:16]}"
