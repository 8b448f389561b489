"""The publisher: builds, signs and sends requests, and makes mode tokens."""

from __future__ import annotations

import functools
import logging
import secrets
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from .. import __version__
from ..credentials import Credentials, base_url, check_host
from ..errors import ConfigurationError
from ..protocol import oauth as signing
from ..protocol.names import Name, check_destination, check_subscriber_id, mask_subscriber_ids
from ..protocol.paths import app_path, stream_path
from ..protocol.tokens import TokenSigner
from . import many, queries
from .attempt import Sender, check_timeout
from .encoding import message_text
from .retries import Failure, with_retries

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_HOST = "api.tambur.io"

_HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded",
    "User-Agent": f"tambur-python/{__version__}",
}

logger = logging.getLogger("tambur")


class Tambur:
    """Publishes to the streams of one app, and makes its mode tokens. Threads may share one instance.

    Credentials, streams and IDs may be ``str``, bytes in UTF-8, or numbers, used as ``str()`` gives them.

    Parameters:
        api_key: identifies the account.
        app_id: identifies the app.
        secret: the secret that the server shares; it is never sent.
        api_host: the server, as ``host``, ``host:port`` or a base URL with ``http`` or ``https``.
        ssl: use ``https`` if ``api_host`` has no scheme.
        timeout: seconds to wait for a connection, and then for an answer: a pair, or one number for both.
            Each attempt starts anew.
        max_retries: how many attempts may follow the first after a transient failure. Each sends the same
            request, which the server delivers once.
        pool_maxsize: how many idle connections stay open.
        session: a session whose adapters, proxies, ``verify`` and ``cert`` are used, as they are now. It is
            not changed or closed. ``None`` for an own session, with the proxies and the CA bundle that the
            environment names.
        encode: returns the text of a message that is neither ``str`` nor bytes, for instance
            ``DjangoJSONEncoder().encode``. ``None`` for compact JSON.

    Raises:
        ConfigurationError: if a parameter is missing or invalid.
    """

    def __init__(
        self,
        api_key: Name,
        app_id: Name,
        secret: Name,
        api_host: str | bytes = DEFAULT_HOST,
        *,
        ssl: bool = False,
        timeout: float | tuple[float, float] = (3.05, 10.0),
        max_retries: int = 2,
        pool_maxsize: int = 32,
        session: requests.Session | None = None,
        encode: Callable[[Any], str] | None = None,
    ) -> None:
        base = base_url(api_host, ssl=ssl)
        credentials = Credentials(api_key, app_id, secret, base)
        # Each publish and token reads these, so an assignment takes effect immediately.
        self.api_key = credentials.api_key
        self.app_id = credentials.app_id
        self.secret = credentials.secret
        self.api_host = check_host(api_host)
        self._timeouts = check_timeout(timeout)
        self._max_retries = _check_count("max_retries", max_retries, at_least=0)
        self._pool_maxsize = _check_count("pool_maxsize", pool_maxsize, at_least=1)
        self._session = session
        if encode is not None and not callable(encode):
            raise ConfigurationError(f"encode must be a function that returns a str, not {encode!r}")
        self._encode = encode
        self._open(base + app_path(self.app_id))

    def _open(self, url: str) -> None:
        self._sender = Sender(url, _HEADERS, self._pool_maxsize, self._session)
        self._url = url
        self._warn_of_default_host = urlsplit(url).netloc == DEFAULT_HOST

    @property
    def url(self) -> str:
        """The URL that every publish begins with: ``http://HOST/app/APP_ID``.

        Publishes after an assignment go to the new URL.

        Raises:
            ConfigurationError: if the assigned URL is invalid.
        """
        return self._url

    @url.setter
    def url(self, url: str) -> None:
        before = self._sender
        self._open(url.decode() if isinstance(url, bytes) else url)
        before.close()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Make a publisher from ``http://API_KEY:SECRET@HOST[:PORT]/app/APP_ID``.

        Parameters:
            url: the URL, its parts percent-encoded, with ``https`` for TLS.
            options: keyword arguments of the constructor.

        Raises:
            ConfigurationError: if the URL has another form. The message does not show the URL.
        """
        credentials = Credentials.from_url(url)
        return cls(
            credentials.api_key, credentials.app_id, credentials.secret, credentials.base_url, **options
        )

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """Make a publisher from the URL in the environment variable ``TAMBUR_URL``.

        Parameters:
            options: keyword arguments of the constructor.

        Raises:
            ConfigurationError: if the variable is not set, or the URL is invalid.
        """
        return cls.from_url(Credentials.from_env().to_url(), **options)

    def __repr__(self) -> str:
        return f"<Tambur {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections. A later publish opens a new one."""
        self._sender.close()

    # Tokens: section 3 of the protocol.

    def generate_auth_token(self, stream: Name, subscriber_id: Name) -> str:
        """Make a token that lets one subscriber receive a stream's ``auth:`` messages.

        Parameters:
            stream: the stream's name, without prefix.
            subscriber_id: the ID that the server gave to the subscriber's connection.

        Returns:
            40 lower-case hexadecimal digits.

        Raises:
            InvalidNameError: if the stream or the ID is invalid. An ID must not contain ``:``.
        """
        return self._signer().auth(stream, subscriber_id)

    def generate_presence_token(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make a token that lets one subscriber be present on a stream as a user, and see who else is.

        Parameters:
            stream: the stream's name, without prefix.
            user_id: the application's own ID for the user. Take it from the session, never from the request.
            subscriber_id: the ID that the server gave to the subscriber's connection.

        Returns:
            40 lower-case hexadecimal digits.

        Raises:
            InvalidNameError: if the stream or an ID is invalid. An ID must not contain ``:``.
        """
        return self._signer().presence(stream, user_id, subscriber_id)

    def generate_direct_token(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make a token that lets one subscriber send and receive direct messages on a stream as a user.

        Parameters, result and errors are those of :meth:`generate_presence_token`.
        """
        return self._signer().direct(stream, user_id, subscriber_id)

    def _signer(self) -> TokenSigner:
        return _token_signer(self.api_key, self.app_id, self.secret)

    # Publishing: section 2 of the protocol.

    def publish(
        self,
        stream: Name,
        message: Any,
        *,
        exclude: Name | None = None,
        timeout: float | tuple[float, float] | None = None,
    ) -> bool:
        """Deliver a message to the current subscribers.

        Parameters:
            stream: ``STREAM``, ``auth:STREAM`` or ``private:SUBSCRIBER_ID``.
            message: a ``str`` is sent unchanged, bytes must be UTF-8. Everything else goes through the
                constructor's ``encode``, by default as JSON.
            exclude: the ID of a subscriber that never receives the message, neither live nor replayed, such
                as the page that caused it; ``None`` for none (section 8 of the protocol).
            timeout: as in the constructor; ``None`` for the constructor's.

        Returns:
            ``True``. Any 2xx is a success, unless its body is an HTML page. The first one but 204 logs a
            warning, since a Tambur server answers 204.

        Raises:
            InvalidNameError: if ``stream`` or ``exclude`` is invalid.
            InvalidMessageError: if the message cannot be encoded as text.
            ConnectionFailedError: if the server cannot be reached.
            TimedOutError: if it does not answer in time.
            RejectedError: if it answers with another status, or with an HTML page.
        """
        self._warn_once()
        stream = check_destination(stream)
        text = message_text(message, self._encode)
        timeouts = self._timeouts if timeout is None else check_timeout(timeout)
        sender = self._sender  # the same for the request and all attempts, despite assignments meanwhile
        excluded = None if exclude is None else check_subscriber_id(exclude)
        timestamp, nonce = int(time.time()), secrets.token_hex(16)
        request = self._build_request(sender, stream, text, timestamp, nonce, exclude=excluded)
        started_at = time.monotonic()
        attempts, outcome = with_retries(lambda: sender.send(request, timeouts), self._max_retries)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "publish to %r: %d bytes, %s, %.1f ms, attempts: %d",
                mask_subscriber_ids(stream),
                len(text.encode()),
                outcome.summary if isinstance(outcome, Failure) else outcome,
                1000 * (time.monotonic() - started_at),
                attempts,
            )
        if isinstance(outcome, Failure):
            raise outcome.to_error(stream, attempts)
        return True

    def _warn_once(self) -> None:
        """Warn of the default host in the caller of a method that publishes."""
        if self._warn_of_default_host:
            self._warn_of_default_host = False
            warnings.warn(
                f"publishing to {DEFAULT_HOST}, the default of 2012, whose operator we don't know; "
                "set api_host to your own server",
                stacklevel=3,
            )

    _publish = publish  # not that of a subclass
    publish_many = many.publish_many

    # Queries: section 9 of the protocol.

    users = queries.users
    history = queries.history
    streams = queries.streams
    disconnect = queries.disconnect

    def build_request(
        self, stream: Name, message: str, timestamp: int, nonce: str
    ) -> requests.PreparedRequest:
        """Make the signed request of one publish without sending it (section 2 of the protocol).

        Parameters:
            stream: as in :meth:`publish`.
            message: the text.
            timestamp: seconds since 1970.
            nonce: text that no other request of the same second has.
        """
        return self._build_request(self._sender, check_destination(stream), message, timestamp, nonce)

    def _build_request(
        self,
        sender: Sender,
        stream: str,
        message: str,
        timestamp: int,
        nonce: str,
        *,
        exclude: str | None = None,
    ) -> requests.PreparedRequest:
        request = sender.template.copy()
        request.url = f"{request.url}{stream_path(stream)}"
        request.body = signing.sign_publish(
            signing.base_string_url(request.url),
            message,
            api_key=self.api_key,
            secret=self.secret,
            timestamp=timestamp,
            nonce=nonce,
            exclude=exclude,
        )
        request.headers["Content-Length"] = str(len(request.body))  # the body is ASCII
        return request

    def oauth(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a form of the caller's own: ``requests.post(url, data=fields, auth=client.oauth)``.

        The 2012 package has an attribute of this name. :meth:`publish` does not need it.
        """
        body = request.body or b""
        request.body = signing.sign_form(
            signing.base_string_url(request.url or ""),
            signing.parse_form(body.encode() if isinstance(body, str) else body),
            api_key=self.api_key,
            secret=self.secret,
            timestamp=int(time.time()),
            nonce=secrets.token_hex(16),
        )
        request.headers["Content-Type"] = _HEADERS["Content-Type"]
        return request


# To key an HMAC takes longer than to make a token.
_token_signer = functools.lru_cache(maxsize=16)(TokenSigner)


def _check_count(name: str, count: object, *, at_least: int) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < at_least:
        raise ConfigurationError(f"{name} must be an integer of at least {at_least}, not {count!r}")
    return count
