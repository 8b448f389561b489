"""The publisher: build a request, sign it, send it, and tell what became of it."""

from __future__ import annotations

import functools
import json
import logging
import math
import secrets
import time
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from .. import __version__
from ..credentials import Credentials, base_url, check_host
from ..errors import ConfigurationError, InvalidMessageError, TamburError
from ..protocol import oauth as signing
from ..protocol.names import Name, check_destination
from ..protocol.paths import app_path, stream_path
from ..protocol.tokens import TokenSigner
from .attempt import Sender
from .many import publish_many
from .retries import with_retries

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_HOST = "api.tambur.io"

_HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded",
    "User-Agent": f"tambur-python/{__version__}",
}

logger = logging.getLogger("tambur")


class Tambur:
    """Publishes to the streams of one app, and makes its mode tokens. One instance serves many threads.

    Credentials, streams and IDs may be ``str``, bytes in UTF-8, or numbers, used as ``str()`` gives them.

    Parameters:
        api_key: identifies the account.
        app_id: identifies the app.
        secret: shared with the server; it is never sent.
        api_host: the server, as ``host``, ``host:port`` or a base URL with ``http`` or ``https``.
        ssl: use ``https`` where ``api_host`` names no scheme.
        timeout: seconds to wait for a connection and then for an answer, as a pair, or one number for
            both. Each attempt has them anew.
        max_retries: how often a request that failed in passing is sent again; it is the same request, so
            that the server delivers its message once. 0 for never.
        pool_maxsize: how many connections are kept open between publishes.
        encode: turns a message that is neither ``str`` nor bytes into the text to send, for instance
            ``DjangoJSONEncoder().encode``. ``None`` for compact JSON of what :mod:`json` supports.
        session: a session whose adapters, proxies, ``verify`` and ``cert`` are used, as they are at this
            moment. It is neither changed nor closed. ``None`` for one of our own, with the proxies and the
            CA bundle that the environment names.

    Raises:
        ConfigurationError: if a parameter is missing or malformed.
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
        # Publishes and tokens read these when they are made, so an assignment takes effect at once.
        self.api_key = credentials.api_key
        self.app_id = credentials.app_id
        self.secret = credentials.secret
        self.api_host = check_host(api_host)
        self._timeouts = _check_timeout(timeout)
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

        Assigning another one redirects what is published from then on.

        Raises:
            ConfigurationError: if the assigned URL is malformed.
        """
        return self._url

    @url.setter
    def url(self, url: str) -> None:
        before = self._sender
        self._open(url)
        before.close()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Make a publisher of ``http://API_KEY:SECRET@HOST[:PORT]/app/APP_ID``.

        Parameters:
            url: its parts percent-encoded; ``https`` for TLS.
            options: keyword arguments of the constructor.

        Raises:
            ConfigurationError: if the URL has another form; the text doesn't show it.
        """
        credentials = Credentials.from_url(url)
        return cls(
            credentials.api_key, credentials.app_id, credentials.secret, credentials.base_url, **options
        )

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """Make a publisher of the URL in the environment variable ``TAMBUR_URL``.

        Raises:
            ConfigurationError: if it is not set, or malformed.
        """
        return cls.from_url(Credentials.from_env().to_url(), **options)

    def __repr__(self) -> str:
        return f"<Tambur {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections. Publishing afterwards opens new ones."""
        self._sender.close()

    # Tokens: section 3 of the protocol.

    def generate_auth_token(self, stream: Name, subscriber_id: Name) -> str:
        """Make the token that lets one subscriber receive ``auth:`` messages of a stream.

        Parameters:
            stream: its name, without prefix.
            subscriber_id: the id that the server gave to the subscriber's connection.

        Returns:
            40 lower-case hexadecimal digits.

        Raises:
            InvalidNameError: if one of them may not be one; a subscriber id may not hold ``:``.
        """
        return self._signer().auth(stream, subscriber_id)

    def generate_presence_token(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make the token that lets one subscriber be present on a stream as a user, and see who else is.

        Parameters:
            stream: its name, without prefix.
            user_id: the application's own name for the user.
            subscriber_id: the id that the server gave to the subscriber's connection.

        Returns:
            40 lower-case hexadecimal digits.

        Raises:
            InvalidNameError: if one of them may not be one; the two ids may not hold ``:``.
        """
        return self._signer().presence(stream, user_id, subscriber_id)

    def generate_direct_token(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make the token that lets one subscriber send and receive direct messages on a stream as a user.

        Parameters, result and errors are those of :meth:`generate_presence_token`.
        """
        return self._signer().direct(stream, user_id, subscriber_id)

    def _signer(self) -> TokenSigner:
        return _token_signer(self.api_key, self.app_id, self.secret)

    # Publishing: section 2 of the protocol.

    def publish(
        self, stream: Name, message: Any, *, timeout: float | tuple[float, float] | None = None
    ) -> bool:
        """Deliver a message to those who are subscribed at this moment.

        Parameters:
            stream: a stream, ``auth:`` and a stream, or ``private:`` and a subscriber id.
            message: a ``str`` is sent unchanged, bytes must be UTF-8. Everything else goes through the
                constructor's ``encode``, by default as JSON.
            timeout: as in the constructor; ``None`` for the one given there.

        Returns:
            ``True``, always.

        Raises:
            InvalidNameError: if ``stream`` is none of the three forms.
            InvalidMessageError: if the message cannot be encoded as text.
            ConnectionFailedError: if the server cannot be reached.
            TimedOutError: if it does not answer in time.
            RejectedError: if it answers with a status other than 2xx, or with an HTML page. Any 2xx but 204
                logs one warning.
        """
        if self._warn_of_default_host:
            self._warn_of_default_host = False
            warnings.warn(
                f"publishing to {DEFAULT_HOST}, the default of 2012, which is nobody's that we know; "
                "give api_host the server that you run",
                stacklevel=2,
            )
        stream = check_destination(stream)
        text = _message_text(message, self._encode)
        timeouts = self._timeouts if timeout is None else _check_timeout(timeout)
        request = self.build_request(stream, text, int(time.time()), secrets.token_hex(16))
        started_at = time.monotonic()
        attempts, failure = with_retries(lambda: self._sender.send(request, timeouts), self._max_retries)
        logger.debug(
            "publish to %r: %d bytes, %s, %.1f ms, attempts: %d",
            stream,
            len(text.encode()),
            "204" if failure is None else failure.summary,
            1000 * (time.monotonic() - started_at),
            attempts,
        )
        if failure is not None:
            raise failure.to_error(stream, attempts)
        return True

    def publish_many(
        self,
        pairs: Iterable[tuple[Name, Any]],
        *,
        timeout: float | tuple[float, float] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[bool | TamburError]:
        """Publish many messages, to several streams at once and to each stream in the order given.

        As many threads as there are streams, and at most ``pool_maxsize``, publish as :meth:`publish` does. A
        message that fails keeps no other from being published, not even to the same stream.

        Parameters:
            pairs: of a stream and a message, as :meth:`publish` takes them. All are taken before the first
                is sent.
            timeout: of each publish, as in :meth:`publish`.
            progress: called in this thread after each message, with how many are done and how many there are;
                ``None`` for nobody. What it raises ends the whole: what is being published is finished, and
                nothing more is begun. So does Ctrl-C.

        Returns:
            For each pair, in their order, ``True`` or the error that :meth:`publish` raised for it.
        """
        # A subclass written for the 2012 package may have a publish() without a timeout.
        publish = self.publish if timeout is None else functools.partial(self.publish, timeout=timeout)
        return publish_many(
            publish,
            pairs,
            max_workers=self._pool_maxsize,
            progress=progress,
        )

    def build_request(
        self, stream: Name, message: str, timestamp: int, nonce: str
    ) -> requests.PreparedRequest:
        """Make the signed request of one publish, without sending it.

        Parameters:
            timestamp: seconds since 1970.
            nonce: text that no other request of the same second has.
        """
        stream = check_destination(stream)
        request = self._sender.template.copy()
        request.url = f"{request.url}{stream_path(stream)}"
        request.body = signing.sign_publish(
            signing.base_string_url(request.url),
            message,
            api_key=self.api_key,
            secret=self.secret,
            timestamp=timestamp,
            nonce=nonce,
        )
        request.headers["Content-Length"] = str(len(request.body))  # all of it is ASCII
        return request

    def oauth(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a form that the caller posts: ``requests.post(url, data=fields, auth=client.oauth)``.

        It is the 2012 package's attribute of that name. :meth:`publish` does not need it.
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


# Keying an HMAC takes longer than a token.
_token_signer = functools.lru_cache(maxsize=16)(TokenSigner)

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _message_text(message: object, encode: Callable[[Any], str] | None) -> str:
    """The text that a message is sent as."""
    if isinstance(message, str):
        text = message
    elif isinstance(message, (bytes, bytearray, memoryview)):
        try:
            return bytes(message).decode()
        except UnicodeDecodeError as error:
            raise InvalidMessageError(
                f"a message of bytes must be UTF-8: {error.reason} at byte {error.start}"
            ) from None
    else:
        kind = type(message).__name__
        try:
            text = _to_json(message) if encode is None else encode(message)
        except Exception as error:  # the caller's encode may raise anything
            reason = (
                f"cannot send a message of type {kind} as JSON: {error}; use Tambur(..., encode=...) for it"
                if encode is None
                else f"encode failed for a message of type {kind}: {type(error).__name__}: {error}"
            )
            raise InvalidMessageError(reason) from error
        if not isinstance(text, str):
            raise InvalidMessageError(
                f"encode must return a str, not {type(text).__name__}, for a message of type {kind}"
            )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessageError(
            f"a message may not contain lone surrogates: {text[error.start]!r} at position {error.start}"
        ) from None
    return text


def _check_timeout(timeout: object) -> tuple[float, float]:
    pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(pair) == 2 and all(
        isinstance(s, (int, float)) and not isinstance(s, bool) and 0 < s < math.inf for s in pair
    ):
        return pair
    raise ConfigurationError(
        f"timeout must be a positive number of seconds, or two for connecting and answering, not {timeout!r}"
    )


def _check_count(name: str, count: object, *, at_least: int) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < at_least:
        raise ConfigurationError(f"{name} must be an integer of at least {at_least}, not {count!r}")
    return count
