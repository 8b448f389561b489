"""Receive the webhooks of a Tambur server in a view of your app: section 10 of the protocol.

In a view of Flask::

    event = tambur.webhooks.parse(request.get_data(), request.headers, secret)

and in one of Django::

    event = tambur.webhooks.parse(request.body, request.headers, secret)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from .errors import ConfigurationError, WebhookVerificationError
from .protocol.webhooks import TOLERANCE_S, decode_secret, is_signed, make_id

_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_MAX_DIGITS = 15
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Headers(Protocol):
    """The headers of a request, as the frameworks have them. Case does not matter."""

    def items(self) -> Iterable[tuple[str, str]]: ...


@dataclass(frozen=True)
class Event:
    """Something that happened on a stream.

    The server may send an event more than once, and a late one after a newer one. So remember the highest
    version of each stream and user, and ignore events that are not above it.

    Attributes:
        type: ``"user.joined"`` or ``"user.left"``. Later versions of the server may send others.
        timestamp: when it happened, in UTC.
        app_id: the app.
        stream: the stream.
        user_id: the user who joined or left.
        version: grows with each event of the stream.
        id: names the event; the same for each attempt to deliver it.
    """

    type: str
    timestamp: datetime
    app_id: str
    stream: str
    user_id: str
    version: int
    id: str


def make_event(type_: str, app_id: str, stream: str, user_id: str, version: int) -> Event:
    """Make an event, as the server does.

    Parameters:
        type_: ``"user.joined"`` or ``"user.left"``.
        version: the microseconds since 1970 at which it happened, or more.
    """
    timestamp = _EPOCH + timedelta(microseconds=version)
    webhook_id = make_id(type_, version, app_id, stream, user_id)
    return Event(type_, timestamp, app_id, stream, user_id, version, webhook_id)


def encode(event: Event) -> bytes:
    """The body of the request for an event."""
    timestamp = event.timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z")
    names = ("app_id", "stream", "user_id", "version")
    data = {name: getattr(event, name) for name in names}
    body = {"type": event.type, "timestamp": timestamp, "data": data}
    return json.dumps(body, separators=(",", ":")).encode()


def parse(body: bytes | str, headers: Headers, secret: str, *, now: float | None = None) -> Event:
    """Verify a request, and read the event in it.

    Parameters:
        body: the body, exactly as it was received.
        headers: the request's headers.
        secret: that of the webhook in the server's configuration, ``whsec_…``.
        now: seconds since 1970; ``None`` for the clock's.

    Raises:
        WebhookVerificationError: a header is missing, the signature does not match, the request was signed
            more than five minutes ago or ahead, or the body is not an event. Answer with the status 400.
        ConfigurationError: the secret is malformed.
    """
    try:
        key = decode_secret(secret)
    except ValueError as error:
        raise ConfigurationError(f"the secret of a webhook {error}") from None
    body = body.encode() if isinstance(body, str) else bytes(body)
    found = {name.lower(): value for name, value in headers.items()}
    for name in _HEADERS:
        if not found.get(name):
            raise WebhookVerificationError(f"the header {name} is missing")
    webhook_id, stated, signatures = (found[name] for name in _HEADERS)
    if not (stated.isascii() and stated.isdigit() and len(stated) <= _MAX_DIGITS):
        raise WebhookVerificationError("the header webhook-timestamp is not a number of seconds since 1970")
    timestamp = int(stated)
    if not is_signed(signatures, key, webhook_id, timestamp, body):
        raise WebhookVerificationError("the signature does not match; compare the secrets of server and app")
    age_s = (time.time() if now is None else now) - timestamp
    if abs(age_s) > TOLERANCE_S:
        where = "old" if age_s > 0 else "in the future"
        raise WebhookVerificationError(
            f"the request is {abs(age_s):.0f} s {where}, more than {TOLERANCE_S} s; compare the clocks"
        )
    return _read(body, webhook_id)


def _read(body: bytes, webhook_id: str) -> Event:
    try:
        event = json.loads(body)
        data = event["data"]
        read = Event(
            type=_expect(str, event["type"]),
            timestamp=datetime.fromisoformat(_expect(str, event["timestamp"]).replace("Z", "+00:00")),
            app_id=_expect(str, data["app_id"]),
            stream=_expect(str, data["stream"]),
            user_id=_expect(str, data["user_id"]),
            version=_expect(int, data["version"]),
            id=webhook_id,
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        raise WebhookVerificationError("the body is not an event of a Tambur server") from None
    return read


def _expect(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value
