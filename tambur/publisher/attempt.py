"""One attempt to send a request: the pool of connections, and what may come instead of a 204.

With :mod:`tambur.errors` the only place that knows what requests and urllib3 raise.
"""

from __future__ import annotations

import email.utils
import http.client
import logging
import os
import re
import ssl
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from ..errors import (
    AppNotFoundError,
    ConfigurationError,
    ConnectionFailedError,
    MessageTooLargeError,
    PublishError,
    RateLimitedError,
    RejectedError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
)
from .adapter import Adapter

MAX_RETRY_AFTER_S = 10.0
"""The longest wait that a server may ask for before a publish is given up instead, in seconds."""

_MAX_REASON_BYTES = 2048

logger = logging.getLogger("tambur")

_REJECTIONS: dict[int, type[RejectedError]] = {
    401: UnauthorizedError,
    404: AppNotFoundError,
    413: MessageTooLargeError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}

# What requests lets through: its own exceptions and, from a hostile answer, those of the layers below.
_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)


class Failure(NamedTuple):
    """Why an attempt did not end with 204.

    Attributes:
        kind: the error that it becomes, if no other attempt follows.
        text: for a person, without what :class:`RejectedError` adds.
        summary: for a log line: the status, or what happened instead.
        is_passing: whether sending the same request again may help.
        is_undelivered: whether the server has certainly delivered nothing.
        response: the answer, ``None`` if there was none.
        retry_after: seconds, ``None`` if the server named none.
    """

    kind: type[PublishError]
    text: str
    summary: str
    is_passing: bool
    is_undelivered: bool
    response: requests.Response | None = None
    retry_after: float | None = None

    def to_error(self, stream: str, attempts: int, *, may_have_been_delivered: bool) -> PublishError:
        """Make what a publish raises."""
        times = f" ({attempts} attempts)" if attempts > 1 else ""
        text = f"publishing to {stream!r} failed: {self.text}{times}"
        if self.response is None or not issubclass(self.kind, RejectedError):
            return self.kind(
                text, stream=stream, attempts=attempts, may_have_been_delivered=may_have_been_delivered
            )
        return self.kind(
            text,
            stream=stream,
            attempts=attempts,
            may_have_been_delivered=may_have_been_delivered,
            response=self.response,
            status=self.response.status_code,
            reason=self.response.text.strip(),
            retry_after=self.retry_after,
        )


class _Session(requests.Session):
    """A session that keeps nothing of an answer, and asks no environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # else .netrc would be read when an answer is a redirect
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        # No redirect is followed, so no Location is looked at: it need not even be a URL.
        return None


class Sender:
    """Connections to one server.

    Parameters:
        url: what every request's URL begins with.
        headers: what every request has.
        pool_maxsize: how many idle connections are kept.
        session: lends its adapters, proxies, ``verify`` and ``cert``; ``None`` for our own, with the
            proxies and the CA bundle of the environment.

    Attributes:
        template: what every request begins as: its headers, and that URL in the form in which it is sent and
            signed. Preparing each anew would cost more than signing it.

    Raises:
        ConfigurationError: if requests cannot send to such a URL.
    """

    def __init__(
        self, url: str, headers: dict[str, str], pool_maxsize: int, session: requests.Session | None
    ) -> None:
        try:
            self.template = requests.Request("POST", url, headers=headers).prepare()
        except (requests.RequestException, ValueError) as error:
            raise ConfigurationError(f"nothing can be sent to {url!r}: {error}") from None
        self._pool_maxsize = pool_maxsize
        self._lender = session
        # Looked up once: in the environment, it costs as much as the rest of a publish.
        settings = session if session is not None else requests.Session()
        verify = None if settings.verify is True else settings.verify
        found = settings.merge_environment_settings(self.template.url, {}, None, verify, None)
        self._proxies, self._verify, self._cert = found["proxies"], found["verify"], found["cert"]
        self._pid = os.getpid()
        self._session = self._open()
        self._has_warned = False
        self.server = urlsplit(self.template.url or "").netloc

    def _open(self) -> requests.Session:
        session = _Session()
        if self._lender is not None:
            session.adapters = OrderedDict(self._lender.adapters)
        else:
            adapter = Adapter(pool_connections=1, pool_maxsize=self._pool_maxsize)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
        return session

    def close(self) -> None:
        """Close idle connections; those of a lent session stay."""
        if self._lender is None:
            closing, self._session = self._session, self._open()
            closing.close()

    def send(self, request: requests.PreparedRequest, timeouts: tuple[float, float]) -> Failure | None:
        """Send a request once.

        Parameters:
            timeouts: for connecting and for each wait for data, in seconds.

        Returns:
            ``None`` if the server accepted it.
        """
        if os.getpid() != self._pid:
            self._leave_parent()
        handled = sys.exc_info()[1]
        try:
            response = self._session.send(
                request,
                stream=True,  # an answer may be endless
                timeout=timeouts,
                verify=self._verify,
                cert=self._cert,
                proxies=self._proxies,
                allow_redirects=False,
            )
        except _ERRORS as error:
            return _translate(error, timeouts, handled)
        is_whole = _read_body(response, give_up_at=time.monotonic() + timeouts[1])
        if not 200 <= response.status_code < 300:
            return _judge(response)
        if not is_whole:
            return _broken("the answer ended early", passing=True)
        if _is_html(response):
            return _judge(response)
        if response.status_code != 204 and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s answers publishes with %d, a Tambur server with 204; is api_host correct?",
                self.server,
                response.status_code,
            )
        return None

    def _leave_parent(self) -> None:
        """After a fork, the connections are the parent's: both writing to one would garble it."""
        if self._lender is not None:
            for adapter in self._lender.adapters.values():
                adapter.close()  # this process's copies of them; the parent's stay open
        self._session = self._open()
        self._pid = os.getpid()


def _read_body(response: requests.Response, *, give_up_at: float) -> bool:
    """Read the beginning of an answer's body, as far as it comes, and let go of the connection.

    Returns:
        Whether the body did not break off before that.
    """
    body = bytearray()
    is_whole = True
    try:
        # Byte by byte, since what came before a break is lost with any larger piece.
        for byte in response.iter_content(1):
            body += byte
            if len(body) >= _MAX_REASON_BYTES or time.monotonic() > give_up_at:
                break
    except _ERRORS:
        is_whole = False
        body += b" (the answer breaks off here)"
    response.close()
    response._content = bytes(body)  # noqa: SLF001 - so that error.response.text works as it always did
    # Whatever charset it names: there are some for which decoding raises, or leaves nothing.
    response.encoding = "utf-8"
    return is_whole


_HTML_START = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html\b", re.IGNORECASE)


def _is_html(response: requests.Response) -> bool:
    """Whether an answer is a page for a person, as a captive portal sends one."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_declared = media_type in ("text/html", "application/xhtml+xml")
    return bool(
        _HTML_START.match(response.content) or (is_declared and re.search(rb"<[!?a-zA-Z]", response.content))
    )


def _judge(response: requests.Response) -> Failure:
    status = response.status_code
    retry_after = _parse_retry_after(response.headers.get("Retry-After"))
    passing = status in (502, 503, 504) and (retry_after is None or retry_after <= MAX_RETRY_AFTER_S)
    reason = response.text.strip()
    if 300 <= status < 400:
        reason = "a redirect, which is not followed; is the host right?"
    elif 200 <= status < 300:
        reason = f"not the 204 of a Tambur server, but an HTML page; is the host right? {reason[:200]}"
    return Failure(
        kind=_REJECTIONS.get(status, RejectedError),
        text=f"the server answered {status}: {reason}",
        summary=str(status),
        is_passing=passing,
        # 502 and 504 come from a proxy that does not know how far the request got, 503 also from a server
        # that lost its broker before it had an answer; 500 and 2xx can be anything.
        is_undelivered=300 <= status < 500,
        response=response,
        retry_after=retry_after,
    )


def _parse_retry_after(value: str | None) -> float | None:
    """Seconds, of either form of RFC 9110 section 10.2.3; ``None`` if it has neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _translate(
    error: Exception, timeouts: tuple[float, float], handled: BaseException | None = None
) -> Failure:
    """What an exception means. ``handled`` is the one that the caller is handling; it has no part in this."""
    causes = list(_causes(error, handled))

    def among(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    root = next((c for c in reversed(causes) if isinstance(c, OSError) and c.strerror), causes[-1])
    because = root.strerror if isinstance(root, OSError) and root.strerror else type(root).__name__

    def lost(text: str, *, passing: bool, undelivered: bool) -> Failure:
        return Failure(ConnectionFailedError, text, text.partition(":")[0], passing, undelivered)

    def late(text: str, *, passing: bool, undelivered: bool) -> Failure:
        return Failure(TimedOutError, text, text, passing, undelivered)

    if type(error) is OSError and error.errno is None:
        # How requests says that there is no file at the path of the CA bundle or the certificate.
        return lost(str(error), passing=False, undelivered=True)
    if among(ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError):
        # A certificate or a protocol version will be no better the next time.
        never_sent = among(ssl.SSLCertVerificationError)
        return lost(f"TLS failed: {root}", passing=False, undelivered=never_sent)
    by_proxy = among(urllib3.exceptions.ProxyError, requests.exceptions.ProxyError)
    if by_proxy and (
        among(urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
        or any("Tunnel connection failed" in str(cause) for cause in causes)
    ):
        return lost(f"the proxy does not connect: {because}", passing=True, undelivered=True)
    if among(urllib3.exceptions.ClosedPoolError):
        return lost("the publisher was closed meanwhile", passing=True, undelivered=True)
    if among(urllib3.exceptions.NewConnectionError):
        text = f"no connection to the server: {because}; is it running, at this host and port?"
        return lost(text, passing=True, undelivered=True)
    # Behind NewConnectionError, which some versions of urllib3 derive from ConnectTimeoutError.
    if among(requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
        return late(f"no connection within {timeouts[0]:g} s", passing=True, undelivered=True)
    if among(TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError):
        # The caller's time is spent, so there is no second attempt.
        return late(f"no answer within {timeouts[1]:g} s", passing=False, undelivered=False)
    broken = among(
        urllib3.exceptions.ProtocolError, requests.ConnectionError, http.client.HTTPException, OSError
    )
    return _broken(because, passing=broken)


def _broken(because: str, *, passing: bool) -> Failure:
    summary = "the connection broke before the answer"
    return Failure(ConnectionFailedError, f"{summary}: {because}", summary, passing, is_undelivered=False)


def _causes(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it wraps, from the outside in, but nothing that was there before."""
    seen = {id(handled)}
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__]
