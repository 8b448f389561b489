"""Which failed attempts are retried, and what a publish raises in the end."""

from __future__ import annotations

import email.utils
import http.client
import inspect
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import requests.exceptions
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from tambur import (
    AppNotFoundError,
    ConnectionFailedError,
    MessageTooLargeError,
    RateLimitedError,
    RejectedError,
    Tambur,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
)
from tambur.publisher import retries

from ..support import faults
from ..support.faults import Behaviour, FaultyServer, publisher

RETRIED: dict[str, Behaviour] = {
    "closed after reading the request": faults.drop,
    "reset after reading the request": faults.reset,
    "half a status line": faults.answer_and_close(b"HTTP/1."),
    "502": faults.response("502 Bad Gateway"),
    "503": faults.response("503 Service Unavailable", "Retry-After: 0"),
    "504": faults.response("504 Gateway Timeout"),
}


@pytest.mark.parametrize("behaviour", RETRIED.values(), ids=RETRIED.keys())
def test_a_transient_failure_is_retried_with_the_same_bytes(behaviour: Behaviour) -> None:
    with FaultyServer(behaviour, behaviour) as server, publisher(server) as tambur:
        assert tambur.publish("test", "x") is True
        assert len(server.bodies) == 3
        assert len(set(server.bodies)) == 1
        assert len({request.head for request in server.received}) == 1


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_max_retries_limits_the_attempts_after_the_first(max_retries: int) -> None:
    with FaultyServer(*[faults.drop] * 9) as server, publisher(server, max_retries=max_retries) as tambur:
        with pytest.raises(ConnectionFailedError) as caught:
            tambur.publish("test", "x")
        assert len(server.received) == caught.value.attempts == max_retries + 1
        assert caught.value.may_have_been_delivered


def test_a_retry_after_in_seconds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with FaultyServer(faults.response("503 No", "Retry-After: 1")) as server, publisher(server) as tambur:
        tambur.publish("test", "x")
        assert slept == [1]
        assert len(server.received) == 2


def test_the_waits_without_a_retry_after_double(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(retries, "_FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(time, "sleep", slept.append)
    with FaultyServer(*[faults.drop] * 9) as server, publisher(server, max_retries=3) as tambur:
        with pytest.raises(ConnectionFailedError):
            tambur.publish("test", "x")
    assert all(longest / 2 <= s <= longest for s, longest in zip(slept, (0.2, 0.4, 0.8), strict=True))


def test_a_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    with FaultyServer(faults.response("503 No", f"Retry-After: {date}")) as server:
        with publisher(server) as tambur, pytest.raises(UnavailableError) as caught:
            tambur.publish("test", "x")
        assert caught.value.retry_after is not None
        assert 3500 < caught.value.retry_after <= 3600


@pytest.mark.parametrize("value", ["soon", "", "-1", "1e9", "²"])
def test_an_invalid_retry_after_is_ignored(value: str) -> None:
    with (
        FaultyServer(faults.response("503 No", f"Retry-After: {value}")) as server,
        publisher(server) as tambur,
    ):
        assert tambur.publish("test", "x") is True


def test_a_long_retry_after_is_left_to_the_caller() -> None:
    with FaultyServer(faults.response("503 No", "Retry-After: 11")) as server, publisher(server) as tambur:
        with pytest.raises(UnavailableError) as caught:
            tambur.publish("test", "x")
        assert caught.value.retry_after == 11
        assert len(server.received) == 1


def test_all_waits_of_a_publish_together_stay_below_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    busy = [faults.response("503 No", "Retry-After: 9")] * 20
    with FaultyServer(*busy) as server, publisher(server, max_retries=19) as tambur:
        with pytest.raises(UnavailableError):
            tambur.publish("test", "x")
        assert 20 < sum(slept) < 30


REJECTED = [
    ("401 Unauthorized", UnauthorizedError, False),
    ("404 Not Found", AppNotFoundError, False),
    ("413 Too Large", MessageTooLargeError, False),
    ("429 Too Many", RateLimitedError, False),
    ("400 Bad Request", RejectedError, False),
    ("421 Misdirected", RejectedError, False),
    ("500 Oops", RejectedError, True),
    ("302 Found", RejectedError, False),
    ("304 Not Modified", RejectedError, False),
]


@pytest.mark.parametrize(("status", "kind", "delivered"), REJECTED)
def test_any_other_status_raises_at_once(
    status: str,
    kind: type[RejectedError],
    delivered: bool,
) -> None:
    behaviour = faults.response(status, "Retry-After: 7", body="because é".encode())
    with FaultyServer(behaviour) as server, publisher(server) as tambur:
        with pytest.raises(RejectedError) as caught:
            tambur.publish("auth:test", "x")
        assert len(server.received) == 1
    error = caught.value
    assert type(error) is kind
    assert (error.stream, error.attempts, error.status) == ("auth:test", 1, int(status[:3]))
    assert error.may_have_been_delivered is delivered
    assert error.retry_after == 7
    if int(status[:3]) != 304:
        assert error.reason == "because é"
    assert str(error.status) in str(error)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_unavailable_server_raises_after_the_retries(status: int) -> None:
    busy = faults.response(f"{status} No", "Retry-After: 0", body=b"later")
    with FaultyServer(busy, busy) as server, publisher(server, max_retries=1) as tambur:
        with pytest.raises(UnavailableError, match=f"answered {status}: later \\(2 attempts\\)") as caught:
            tambur.publish("test", "x")
    assert caught.value.status == status
    assert caught.value.may_have_been_delivered


def test_an_attempt_that_may_have_delivered_counts_to_the_end() -> None:
    """The first attempt may have been delivered, whatever the second answer is."""
    with FaultyServer(faults.drop, faults.response("401 No")) as server, publisher(server) as tambur:
        with pytest.raises(UnauthorizedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.attempts == 2
    assert caught.value.may_have_been_delivered


@pytest.mark.parametrize(
    "handled",
    [
        TimeoutError("another"),
        ssl.SSLCertVerificationError(1, "another"),
        requests.ConnectionError(urllib3.exceptions.NewConnectionError("pool", "another")),  # type: ignore[arg-type]
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_the_caller_handles_is_not_a_cause(handled: Exception) -> None:
    """An application may publish while it handles an exception, for instance to a second server."""
    with FaultyServer(*[faults.drop] * 3) as server, publisher(server) as tambur:
        try:
            raise handled
        except type(handled):
            with pytest.raises(ConnectionFailedError, match="broke before the answer") as caught:
                tambur.publish("test", "x")
    assert (caught.value.attempts, caught.value.may_have_been_delivered) == (3, True)
    assert "another" not in str(caught.value)


def exceptions_of(module: Any, base: type[BaseException]) -> list[type[BaseException]]:
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base)]
    return [kind for kind in found if not issubclass(kind, Warning)]


EVERY_EXCEPTION = [
    *exceptions_of(requests.exceptions, requests.RequestException),
    *exceptions_of(urllib3.exceptions, urllib3.exceptions.HTTPError),
    *exceptions_of(http.client, http.client.HTTPException),
    OSError,
    ConnectionResetError,
    TimeoutError,
    ssl.SSLError,
    ssl.SSLCertVerificationError,
    UnicodeError,
    ValueError,
]


class RaisingAdapter(HTTPAdapter):
    def __init__(self, make: Callable[[], BaseException]) -> None:
        super().__init__()
        self.make = make

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        raise self.make()


@pytest.mark.parametrize("kind", EVERY_EXCEPTION, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_exception_of_requests_and_below_becomes_one_of_ours(kind: type[BaseException]) -> None:
    error = kind.__new__(kind)
    error.args = ("something",)
    with requests.Session() as session:
        session.mount("http://", RaisingAdapter(lambda: error))
        tambur = Tambur("k", "a", "s", "h", session=session, max_retries=0)
        with pytest.raises((ConnectionFailedError, TimedOutError)) as caught:
            tambur.publish("test", "x")
    timeouts = (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError)
    assert isinstance(caught.value, requests.Timeout) or not issubclass(kind, timeouts)


def test_an_exception_that_requests_does_not_document_passes_as_a_bug() -> None:
    with requests.Session() as session:
        session.mount("http://", RaisingAdapter(lambda: KeyError("bug")))
        with pytest.raises(KeyError):
            Tambur("k", "a", "s", "h", session=session).publish("test", "x")
