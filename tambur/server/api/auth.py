"""Verifies signed requests, whatever they ask for: section 2 of the protocol.

The steps are: :meth:`Verifier.find` the app, :meth:`Verifier.parse` and :meth:`Verifier.check_form`, the
caller's checks of its own parameters, and :meth:`Verifier.verify`. Each step refuses with its own statuses.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from ...credentials import is_host
from ...protocol import oauth as signing
from ..apps import Apps
from ..broker import CLAIM_WINDOW_S, Claim
from ..config import App

MAX_NONCE_BYTES = 200

MAX_PARAMETERS = 64
"""How many parameters a request may have: the server sorts them before it knows who sent them."""

MAX_SHOWN_CHARACTERS = 64 * 1024
"""How much of a base string a refusal shows."""

_REQUIRED = (
    b"api_version",
    b"oauth_consumer_key",
    b"oauth_nonce",
    b"oauth_signature",
    b"oauth_signature_method",
    b"oauth_timestamp",
    b"oauth_version",
)
_FIXED = {b"api_version": b"1.0", b"oauth_version": b"1.0", b"oauth_signature_method": b"HMAC-SHA1"}
_INTEGER = re.compile(rb"-?[0-9]{1,18}")
_DIGEST_BYTES = 16


class RefusedError(Exception):
    """The server answers the request with an error status.

    Attributes:
        status: the HTTP status.
        reason: the text of the answer.
        retry_after_s: seconds until a retry makes sense; ``None`` if it never does.
        base_string: the base string that the server computed, for a client that debugs; otherwise ``None``.
    """

    def __init__(self, status: int, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.base_string: str | None = None


class Target(NamedTuple):
    """The app and the stream that the Host and the path of a request name.

    Attributes:
        host: the Host header.
        raw_path: the path as it was sent.
        app_id: the app ID in the path.
        apps: the apps with this ID, by API key.
    """

    host: str
    raw_path: bytes
    app_id: str
    apps: Mapping[str, App]


class SignedRequest:
    """A signed request of the right form. Nothing of it is verified yet.

    Attributes:
        target: the app that it is for.
        names: the names of the parameters of its form, with doubled ones.
        parameters: the parameters. Of a doubled one that is not required, the last value.
    """

    def __init__(self, target: Target, form: bytes) -> None:
        self.target = target
        self._form = form
        self._parameters = signing.parse_form(form)
        self.names = [name for name, _ in self._parameters]
        self.parameters = dict(self._parameters)

    async def encode(self) -> None:
        """Compute the base string of a large request in advance, in several turns of the event loop."""
        encoded = []
        for part in signing.base_string_rest(self._signed, self._form):
            encoded.append(part)
            await asyncio.sleep(0)
        self._rest = encoded

    def is_signed_by(self, app: App) -> bool:
        """Whether the signature was made with a secret of the app."""
        signature = self.parameters[b"oauth_signature"]
        # Behind a proxy that terminates TLS, the client signed https though http arrives.
        for scheme in ("http", "https"):
            start = self._start(scheme)
            # Every secret is tried, so that the time does not tell which one was right.
            found = [signing.verify(start, self._rest, secret, signature) for secret in app.secrets]
            if any(found):
                return True
        return False

    @property
    def _signed(self) -> Iterator[tuple[bytes, bytes]]:
        return (parameter for parameter in self._parameters if parameter[0] != b"oauth_signature")

    @functools.cached_property
    def _rest(self) -> list[bytes]:
        return list(signing.base_string_rest(self._signed, self._form))

    @property
    def base_string(self) -> str:
        """The base string, cut off after :data:`MAX_SHOWN_CHARACTERS`."""
        shown = self._start("http")
        for part in self._rest:
            shown += part.decode()
            if len(shown) > MAX_SHOWN_CHARACTERS:
                return f"{shown[:MAX_SHOWN_CHARACTERS]}..."
        return shown

    def _start(self, scheme: str) -> str:
        url = f"{scheme}://{self.target.host}{self.target.raw_path.decode('ascii')}"
        return signing.base_string_start(signing.base_string_url(url))


class Verifier:
    """Verifies the requests to the apps of a server.

    Parameters:
        apps: all apps.
        clock: returns seconds since 1970.
    """

    def __init__(self, apps: Iterable[App], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._apps = Apps(apps)

    def find(self, host: str, raw_path: bytes, app_id: str) -> Target:
        """Find the apps with an ID, before the body is read.

        Parameters:
            host: the Host header.
            raw_path: the path as it was sent.
            app_id: the app ID in the path.

        Raises:
            RefusedError: 400 for an invalid Host or path, 404 for an unknown app.
        """
        if not raw_path.isascii():
            raise RefusedError(400, "the path must be percent-encoded")
        # The signature covers the host together with the path, so it must not contain a part of a path.
        if not is_host(host):
            raise RefusedError(400, f"invalid Host header: {host!a:.100}")
        apps = self._apps.with_id(app_id)
        if apps is None:
            raise RefusedError(404, f"there is no app {app_id!r} here")
        return Target(host, raw_path, app_id, apps)

    def parse(self, target: Target, content_type: str, body: bytes) -> SignedRequest:
        """Parse a form of the right type and size.

        Raises:
            RefusedError: 400.
        """
        if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
            raise RefusedError(
                400, f"the Content-Type must be application/x-www-form-urlencoded, not {content_type!r:.100}"
            )
        if body.count(b"&") >= MAX_PARAMETERS:
            raise RefusedError(400, f"the body has more than {MAX_PARAMETERS} parameters")
        return SignedRequest(target, body)

    def check_form(self, request: SignedRequest, required: Iterable[bytes]) -> None:
        """Check the parameters that every signed request has.

        Parameters:
            required: the names of further parameters that must be given, once.

        Raises:
            RefusedError: 400.
        """
        names, values = request.names, request.parameters
        for name in (*_REQUIRED, *required):
            if (count := names.count(name)) != 1:
                raise RefusedError(400, f"{name.decode()} must be given once, not {count} times")
        for name, expected in _FIXED.items():
            if values[name] != expected:
                raise RefusedError(
                    400, f"{name.decode()} must be {expected.decode()}, not {_show(values[name])}"
                )
        if not _INTEGER.fullmatch(values[b"oauth_timestamp"]):
            raise RefusedError(
                400, f"oauth_timestamp must be an integer, not {_show(values[b'oauth_timestamp'])}"
            )
        size = len(values[b"oauth_nonce"])
        if size > MAX_NONCE_BYTES:
            raise RefusedError(400, f"oauth_nonce has {size} bytes, at most {MAX_NONCE_BYTES} are allowed")

    def verify(self, request: SignedRequest) -> tuple[App, Claim, int]:
        """Verify the key, the signature and the timestamp.

        Returns:
            The app, the claim of the nonce, and the time in seconds since 1970.

        Raises:
            RefusedError: 401.
        """
        now = int(self._clock())
        target, values = request.target, request.parameters
        app = target.apps.get(values[b"oauth_consumer_key"].decode("utf-8", "replace"))
        if app is None:
            raise RefusedError(401, f"the app {target.app_id!r} has no such key (oauth_consumer_key)")
        if not request.is_signed_by(app):
            raise RefusedError(
                401, f"wrong signature; is the secret right, and is {target.host!r} the host that was signed?"
            )
        timestamp = int(values[b"oauth_timestamp"])
        off_by = timestamp - now
        if abs(off_by) > CLAIM_WINDOW_S:
            raise RefusedError(
                401,
                f"oauth_timestamp is {abs(off_by)} s {'ahead of' if off_by > 0 else 'behind'} the server's "
                f"clock, at most {CLAIM_WINDOW_S} s are allowed; is the publisher's clock right?",
            )
        nonce, signature = _digest(values[b"oauth_nonce"]), _digest(values[b"oauth_signature"])
        return app, Claim(app.key, timestamp, nonce, signature), now


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8.

    Parameters:
        name: the data's name in an error, such as ``"the stream"``.

    Raises:
        RefusedError: 400.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"{name} is not UTF-8: {error.reason} at byte {error.start}") from None


def nonce_reused() -> RefusedError:
    """The refusal of a nonce that another request has used."""
    return RefusedError(401, "oauth_nonce was used before, in a request with another signature")


def _show(value: bytes) -> str:
    return ascii(value[:40].decode("utf-8", "replace"))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
