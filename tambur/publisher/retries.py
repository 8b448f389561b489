"""The retry policy: the meaning of a failed attempt to publish, and whether another follows.

- Every attempt sends the same signed bytes, which the server delivers once.
- Another attempt follows a transient failure alone, at most ``max_retries`` times.
- The waits double. The server's ``Retry-After`` extends a wait.

With :mod:`tambur.errors` this is the only module that knows what requests and urllib3 raise.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import requests
import urllib3.exceptions

from ..errors import (
    AppNotFoundError,
    ConnectionFailedError,
    MessageTooLargeError,
    PublishError,
    RateLimitedError,
    RejectedError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
    explain_connection_error,
)

MAX_RETRY_AFTER_S = 10.0
"""The longest ``Retry-After`` that a publish waits for, in seconds. A longer one is an immediate failure."""

MAX_TOTAL_WAIT_S = 29.0
"""How long one publish may wait between its attempts, all waits together, in seconds."""

_FIRST_WAIT_S = 0.2

T = TypeVar("T")

FOREIGN_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)
"""The exceptions of requests: its own and, for a malformed answer, those of the layers below."""

_REJECTIONS: dict[int, type[RejectedError]] = {
    401: UnauthorizedError,
    404: AppNotFoundError,
    413: MessageTooLargeError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


class Route(NamedTuple):
    """Where requests go, for the texts of failures.

    Attributes:
        server: ``host:port``.
        is_tls: whether the URL is ``https``.
        proxy: ``host:port`` of the proxy in between; ``None`` for a direct connection.
    """

    server: str
    is_tls: bool
    proxy: str | None

    def __str__(self) -> str:
        return self.server if self.proxy is None else f"{self.server} (through the proxy {self.proxy})"


class Failure(NamedTuple):
    """Why an attempt failed.

    Attributes:
        kind: the error to raise if no other attempt follows.
        text: the reason for a person, with the server's address.
        summary: the reason for a log line: the status, or a few words.
        is_transient: whether another attempt may succeed.
        is_undelivered: whether the server has certainly delivered nothing.
        response: the answer; ``None`` if none arrived.
        retry_after: seconds; ``None`` if the server named none.
    """

    kind: type[PublishError]
    text: str
    summary: str
    is_transient: bool
    is_undelivered: bool
    response: requests.Response | None = None
    retry_after: float | None = None

    def to_error(self, stream: str, attempts: int, what: str = "") -> PublishError:
        """Make the error that a publish or a query raises.

        Parameters:
            stream: the destination, prefix included; ``""`` for none.
            what: what failed, for the text; ``""`` for a publish.
            attempts: the number of attempts.
        """
        times = f" ({attempts} attempts)" if attempts > 1 else ""
        what = what or f"publishing to {stream!r}"
        text = f"{what} failed: {self.text}{times}"
        may_have_been_delivered = not self.is_undelivered
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


def with_retries(attempt: Callable[[], Failure | T], max_retries: int) -> tuple[int, Failure | T]:
    """Attempt until one attempt succeeds, or the policy gives up.

    Parameters:
        attempt: attempts once; returns the result of a success.
        max_retries: how many attempts may follow the first.

    Returns:
        The number of attempts, and the result of the success or the last failure. That failure is undelivered
        only if all failures before it are.
    """
    attempts = 1
    waited_s = 0.0
    is_undelivered = True
    while isinstance(failure := attempt(), Failure):
        is_undelivered = is_undelivered and failure.is_undelivered
        # Random, so that clients that failed together do not return together.
        wait_s = _FIRST_WAIT_S * 2 ** (attempts - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        wait_s = max(wait_s, failure.retry_after or 0.0)
        waited_s += wait_s
        if not failure.is_transient or attempts > max_retries or waited_s > MAX_TOTAL_WAIT_S:
            return attempts, failure._replace(is_undelivered=is_undelivered)
        time.sleep(wait_s)
        attempts += 1
    return attempts, failure


def of_response(response: requests.Response, route: Route) -> Failure:
    """The failure of a publish that was answered, but not accepted.

    Parameters:
        response: the answer, its body already read.
    """
    status = response.status_code
    retry_after = _parse_retry_after(response.headers.get("Retry-After"))
    may_pass = status in (502, 503, 504) and (retry_after is None or retry_after <= MAX_RETRY_AFTER_S)
    reason = response.text.strip()
    if 300 <= status < 400:
        reason = "a redirect, which is not followed; is api_host correct?"
    elif 200 <= status < 300:
        reason = f"not the 204 of a Tambur server, but an HTML page; is api_host correct? {reason[:200]}"
    return Failure(
        kind=_REJECTIONS.get(status, RejectedError),
        text=f"{route} answered {status}: {reason}",
        summary=str(status),
        is_transient=may_pass,
        # A proxy that answers 502 or 504 does not know how far the request got. A server that answers 503
        # may have lost its broker after the broker's delivery. 500 and 2xx can mean anything.
        is_undelivered=300 <= status < 500,
        response=response,
        retry_after=retry_after,
    )


def of_unknown_answer(response: requests.Response, route: Route) -> Failure:
    """The failure of a query that was answered with a success, but not as a Tambur server does."""
    return Failure(
        kind=RejectedError,
        text=f"{route} answered {response.status_code}, but not like a Tambur server; is api_host correct?",
        summary="unknown answer",
        is_transient=False,
        is_undelivered=False,
        response=response,
    )


def _parse_retry_after(value: str | None) -> float | None:
    """Seconds, of either form of RFC 9110 section 10.2.3; ``None`` if the value has neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def of_exception(
    error: Exception, route: Route, timeouts: tuple[float, float], *, handled: BaseException | None = None
) -> Failure:
    """The failure of an attempt in which requests raised an exception.

    Parameters:
        error: one of :data:`FOREIGN_ERRORS`.
        timeouts: those of the attempt, in seconds.
        handled: an exception that the caller already handled before; it says nothing about this attempt.
    """
    causes = list(_causes(error, handled))

    def among(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    root = _root(causes)

    if type(error) is OSError and error.errno is None:
        # requests found no file at the path of the CA bundle or the certificate.
        return _not_connected(f"cannot connect to {route}: {error}", is_transient=False)
    if among(ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError):
        why = explain_connection_error(root, ca_variable="REQUESTS_CA_BUNDLE")
        if not isinstance(root, ssl.SSLError):
            why = f"TLS failed: {why}"  # urllib3 1.26 compares the host name itself
        # Another attempt meets the same certificate and the same protocol version.
        return Failure(
            ConnectionFailedError,
            f"cannot connect to {route}: {why}",
            "TLS failed",
            is_transient=False,
            is_undelivered=among(ssl.SSLCertVerificationError),
        )
    if among(urllib3.exceptions.ProxyError, requests.exceptions.ProxyError):
        refusals = [str(c) for c in causes if type(c) is OSError and "Tunnel connection failed" in str(c)]
        if refusals:
            refusal = refusals[0].partition(": ")[2]
            return _not_connected(f"the proxy {route.proxy} does not connect to {route.server}: {refusal}")
        if among(urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            why = explain_connection_error(root).partition(";")[0]
            return _not_connected(
                f"cannot connect to the proxy {route.proxy} of {route.server}: {why}; "
                "check the proxy's address, or name the server in no_proxy"
            )
    if among(urllib3.exceptions.ClosedPoolError):
        return _not_connected("another thread closed the publisher")
    if among(urllib3.exceptions.NewConnectionError):
        return _not_connected(f"cannot connect to {route}: {explain_connection_error(root)}")
    # After NewConnectionError, which some versions of urllib3 derive from ConnectTimeoutError.
    if among(requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
        text = f"cannot connect to {route} within {timeouts[0]:g} s; is the host reachable from here?"
        return Failure(TimedOutError, text, "no connection in time", is_transient=True, is_undelivered=True)
    if among(TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError):
        # The caller's time is spent, so no other attempt follows.
        return late(route, timeouts)
    why = explain_connection_error(root)
    if isinstance(root, ConnectionResetError) and not route.is_tls:
        why += "; does the server expect https?"
    return broken(
        route,
        why,
        is_transient=among(
            urllib3.exceptions.ProtocolError, requests.ConnectionError, http.client.HTTPException, OSError
        ),
    )


def _root(causes: list[BaseException]) -> BaseException:
    """The innermost error that has a reason of the system, or else the innermost of a connection."""
    for error in reversed(causes):
        if isinstance(error, OSError) and error.strerror:
            return error
    # urllib3 1.26 wraps such an error around its own TypeError.
    return next((error for error in reversed(causes) if isinstance(error, ConnectionError)), causes[-1])


def _not_connected(text: str, *, is_transient: bool = True) -> Failure:
    return Failure(ConnectionFailedError, text, "no connection", is_transient, is_undelivered=True)


def late(route: Route, timeouts: tuple[float, float]) -> Failure:
    """The failure of an attempt whose answer takes longer than its timeout."""
    text = f"{route} did not answer within {timeouts[1]:g} s"
    return Failure(TimedOutError, text, "no answer in time", is_transient=False, is_undelivered=False)


def broken(route: Route, why: str, *, is_transient: bool = True) -> Failure:
    """The failure of an attempt whose connection broke before the end of the answer."""
    return Failure(
        ConnectionFailedError,
        f"the connection to {route} broke before the answer: {why}",
        "the connection broke",
        is_transient,
        is_undelivered=False,
    )


def _causes(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """An exception and all exceptions that it wraps, outermost first, without those handled before."""
    seen = {id(handled)}
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__]
