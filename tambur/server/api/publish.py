"""A publish, from the bytes of its HTTP request to the broker: section 2 of the protocol."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from ...credentials import is_host
from ...errors import InvalidNameError
from ...protocol import oauth as signing
from ...protocol.messages import encode_message
from ...protocol.names import Destination, parse_destination
from ...protocol.paths import split_publish_path
from ..broker import (
    CLAIM_WINDOW_S,
    AppKey,
    Broker,
    BrokerUnavailableError,
    Claim,
    Outcome,
    Publication,
    Published,
)
from ..config import App, Config
from ..counters import Counts

MAX_NONCE_BYTES = 200

MAX_PARAMETERS = 64
"""How many parameters a publish may have: all are sorted before anything is known of who sent them."""

MAX_SHOWN_CHARACTERS = 64 * 1024
"""How much of a base string is shown to a publisher that asks for it."""

_REQUIRED = (
    b"api_version",
    b"message",
    b"oauth_consumer_key",
    b"oauth_nonce",
    b"oauth_signature",
    b"oauth_signature_method",
    b"oauth_timestamp",
    b"oauth_version",
)
_FIXED = {b"api_version": b"1.0", b"oauth_version": b"1.0", b"oauth_signature_method": b"HMAC-SHA1"}
_DIGEST_BYTES = 16

logger = logging.getLogger("tambur.server")


class RefusedError(Exception):
    """The request is answered with a status other than 204.

    Attributes:
        status: the HTTP status.
        reason: what the publisher is told.
        retry_after_s: seconds, ``None`` where trying again makes no sense.
        base_string: what the server computed, if a debugging client asked for it; otherwise ``None``.
    """

    def __init__(self, status: int, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.base_string: str | None = None


class Target(NamedTuple):
    """What a request's Host and path name: the apps of that id, by their key, and the stream's bytes."""

    host: str
    raw_path: bytes
    app_id: str
    apps: dict[str, App]
    destination: bytes


class _Signed:
    """A target with the parameters of its form, as they are signed."""

    def __init__(self, target: Target, parameters: list[tuple[bytes, bytes]]) -> None:
        self._target = target
        self._parameters = [p for p in parameters if p[0] != b"oauth_signature"]

    def is_by(self, app: App, signature: bytes) -> bool:
        """Whether the signature was made with a secret of the app."""
        rest = list(signing.base_string_rest(self._parameters))
        # Behind a proxy that ends TLS, the publisher signed https though http arrives.
        return any(_is_signed(self._start(scheme), rest, app, signature) for scheme in ("http", "https"))

    @property
    def base_string(self) -> str:
        """What is signed, cut off after MAX_SHOWN_CHARACTERS."""
        shown = self._start("http")
        for part in signing.base_string_rest(self._parameters):
            shown += part.decode()
            if len(shown) > MAX_SHOWN_CHARACTERS:
                return f"{shown[:MAX_SHOWN_CHARACTERS]}..."
        return shown

    def _start(self, scheme: str) -> str:
        url = f"{scheme}://{self._target.host}{self._target.raw_path.decode('ascii')}"
        return signing.base_string_start(signing.base_string_url(url))


class _Request(NamedTuple):
    """A request of the right form, nothing of it verified yet."""

    app_key: str
    destination: Destination
    message: str
    timestamp: int
    nonce: bytes
    signature: bytes


class Publishing:
    """Verifies publishes and hands them to the broker.

    Parameters:
        config: the apps and the limits.
        broker: carries what is published, and knows which nonces were used.
        clock: seconds since 1970.
        counts: where the calls of the broker are counted, ``None`` for nowhere.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        clock: Callable[[], float] = time.time,
        counts: Counts | None = None,
    ) -> None:
        self._counts = counts or Counts()
        self._limits = config.limits
        self._broker = broker
        self._clock = clock
        self._apps: dict[str, dict[str, App]] = {}
        for app in config.apps:
            self._apps.setdefault(app.app_id, {})[app.api_key] = app

    def target(self, host: str, raw_path: bytes) -> Target:
        """Find whom a request is for, before its body is read.

        Raises:
            RefusedError: 400 or 404.
        """
        if not is_host(host):
            # It is signed together with the path, so it must not hold a part of one.
            raise RefusedError(400, f"the Host header is no host: {host!a:.100}")
        if not raw_path.isascii():
            raise RefusedError(400, "the path must be percent-encoded")
        split = split_publish_path(raw_path)
        if split is None:
            raise RefusedError(404, "the path of a publish is /app/APP_ID/stream/STREAM")
        app_id, destination = split
        apps = self._apps.get(app_id)
        if apps is None:
            raise RefusedError(404, f"there is no app {app_id!r} here")
        return Target(host, raw_path, app_id, apps, destination)

    async def publish(
        self, target: Target, content_type: str, body: bytes, *, debug: bool = False
    ) -> Published:
        """Verify one request and deliver its message.

        Parameters:
            debug: give a refusal the base string that the server computed.

        Returns:
            Its outcome, which is DELIVERED or REPLAYED, and how many nodes listen to the stream.

        Raises:
            RefusedError: with every status but 204 and, for a body over the limit, 413.
        """
        if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
            raise RefusedError(
                400, f"the Content-Type must be application/x-www-form-urlencoded, not {content_type!r:.100}"
            )
        if body.count(b"&") >= MAX_PARAMETERS:
            raise RefusedError(400, f"the body has more than {MAX_PARAMETERS} parameters")
        parameters = signing.parse_form(body)
        signed = _Signed(target, parameters)
        try:
            return await self._publish(target, _parse(target, parameters), signed)
        except RefusedError as refused:
            if debug:
                refused.base_string = signed.base_string
            raise

    async def _publish(self, target: Target, request: _Request, signed: _Signed) -> Published:
        now = int(self._clock())
        app = target.apps.get(request.app_key)
        if app is None:
            raise RefusedError(401, f"the app {target.app_id!r} has no such key (oauth_consumer_key)")
        if not signed.is_by(app, request.signature):
            raise RefusedError(
                401, f"wrong signature; is the secret right, and is {target.host!r} the host that was signed?"
            )
        _check_timestamp(request.timestamp, now)
        claim = _claim(app.key, request)
        size = len(request.message.encode())
        limit = self._limits.max_message_bytes
        try:
            if size > limit:
                if await self._broker.claimed(claim) is Outcome.NONCE_REUSED:
                    raise _nonce_reused()
                raise RefusedError(413, f"the message has {size} bytes, at most {limit} are allowed")
            kind, name = request.destination
            event = encode_message(kind, name, request.message)
            asked_at = time.perf_counter()
            published = await self._broker.publish(
                Publication(app.key, kind, name, event),
                claim,
                now=now,
                max_publishes_per_s=app.max_publishes_per_s,
            )
            self._counts.broker_calls += 1
            self._counts.broker_s += time.perf_counter() - asked_at
        except BrokerUnavailableError as error:
            raise RefusedError(503, str(error), retry_after_s=error.retry_after_s) from error
        if published.outcome is Outcome.NONCE_REUSED:
            raise _nonce_reused()
        if published.outcome is Outcome.RATE_LIMITED:
            reason = f"more than {app.max_publishes_per_s:g} publishes/s"
            raise RefusedError(429, reason, retry_after_s=published.retry_after_s)
        return published


def _is_signed(start: str, rest: list[bytes], app: App, signature: bytes) -> bool:
    # Every secret is tried, so that the time taken does not tell which of them was right.
    right = [signing.verify(start, rest, secret, signature) for secret in app.secrets]
    return any(right)


def _parse(target: Target, parameters: list[tuple[bytes, bytes]]) -> _Request:
    values = dict(parameters)
    names = [name for name, _ in parameters]
    for required in _REQUIRED:
        count = names.count(required)
        if count != 1:
            raise RefusedError(400, f"{required.decode()} must be given once, not {count} times")
    for name, expected in _FIXED.items():
        if values[name] != expected:
            raise RefusedError(400, f"{name.decode()} must be {expected.decode()}, not {_show(values[name])}")
    timestamp = values[b"oauth_timestamp"]
    if not re.fullmatch(rb"-?[0-9]{1,18}", timestamp):
        raise RefusedError(400, f"oauth_timestamp must be an integer, not {_show(timestamp)}")
    nonce = values[b"oauth_nonce"]
    if len(nonce) > MAX_NONCE_BYTES:
        raise RefusedError(400, f"oauth_nonce has {len(nonce)} bytes, at most {MAX_NONCE_BYTES} are allowed")
    try:
        message = values[b"message"].decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the message is not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        destination = parse_destination(target.destination.decode())
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the stream is not UTF-8: {error.reason} at byte {error.start}") from None
    except InvalidNameError as error:
        raise RefusedError(400, str(error)) from None
    return _Request(
        app_key=values[b"oauth_consumer_key"].decode("utf-8", "replace"),
        destination=destination,
        message=message,
        timestamp=int(timestamp),
        nonce=nonce,
        signature=values[b"oauth_signature"],
    )


def _show(value: bytes) -> str:
    return ascii(value[:40].decode("utf-8", "replace"))


def _check_timestamp(timestamp: int, now: int) -> None:
    off_by = timestamp - now
    if abs(off_by) > CLAIM_WINDOW_S:
        raise RefusedError(
            401,
            f"oauth_timestamp is {abs(off_by)} s {'ahead of' if off_by > 0 else 'behind'} the server's "
            f"clock, at most {CLAIM_WINDOW_S} s are allowed; is the publisher's clock right?",
        )


def _claim(app: AppKey, request: _Request) -> Claim:
    return Claim(app, request.timestamp, _digest(request.nonce), _digest(request.signature))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _nonce_reused() -> RefusedError:
    return RefusedError(401, "oauth_nonce was used before, in a request with another signature")
