"""What becomes of a publish when the server, or what stands before it, misbehaves."""

from __future__ import annotations

import email.utils
import http.client
import inspect
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import requests.exceptions
import trustme
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from tambur import (
    AppNotFoundError,
    ConnectionFailedError,
    MessageTooLargeError,
    PublishError,
    RateLimitedError,
    RejectedError,
    Tambur,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
)

from ..support import faults
from ..support.faults import Behaviour, FaultyServer


def publisher(server: FaultyServer, **options: Any) -> Tambur:
    return Tambur("key", "app", "secret", server.host, **options)


def test_a_connection_closed_while_idle_is_replaced() -> None:
    with FaultyServer(faults.ok_then_close) as server, publisher(server) as tambur:
        tambur.publish("test", "first")
        assert server.closed.get(timeout=faults.TIMEOUT_S) == 1
        assert tambur.publish("test", "second") is True
        assert [request.connection for request in server.received] == [1, 2]


RETRIED: dict[str, Behaviour] = {
    "closed after reading the request": faults.drop,
    "reset after reading the request": faults.reset,
    "half a status line": faults.answer_and_close(b"HTTP/1."),
    "502": faults.response("502 Bad Gateway"),
    "503": faults.response("503 Service Unavailable", "Retry-After: 0"),
    "504": faults.response("504 Gateway Timeout"),
}


@pytest.mark.parametrize("behaviour", RETRIED.values(), ids=RETRIED.keys())
def test_what_may_pass_is_retried_with_the_very_same_bytes(behaviour: Behaviour) -> None:
    with FaultyServer(behaviour, behaviour) as server, publisher(server) as tambur:
        assert tambur.publish("test", "x") is True
        assert len(server.bodies) == 3
        assert len(set(server.bodies)) == 1
        assert len({request.head for request in server.received}) == 1


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_max_retries_counts_what_is_sent_again(max_retries: int) -> None:
    with FaultyServer(*[faults.drop] * 9) as server, publisher(server, max_retries=max_retries) as tambur:
        with pytest.raises(ConnectionFailedError) as caught:
            tambur.publish("test", "x")
        assert len(server.received) == caught.value.attempts == max_retries + 1
        assert caught.value.may_have_been_delivered


def test_retry_after_in_seconds_is_waited_for() -> None:
    with FaultyServer(faults.response("503 No", "Retry-After: 1")) as server, publisher(server) as tambur:
        started = time.monotonic()
        tambur.publish("test", "x")
        assert time.monotonic() - started >= 1
        assert len(server.received) == 2


def test_retry_after_as_a_date_is_understood() -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    with FaultyServer(faults.response("503 No", f"Retry-After: {date}")) as server:
        with publisher(server) as tambur, pytest.raises(UnavailableError) as caught:
            tambur.publish("test", "x")
        assert caught.value.retry_after is not None
        assert 3500 < caught.value.retry_after <= 3600


@pytest.mark.parametrize("value", ["soon", "", "-1", "1e9", "²"])
def test_a_retry_after_that_is_none_is_left_out(value: str) -> None:
    with (
        FaultyServer(faults.response("503 No", f"Retry-After: {value}")) as server,
        publisher(server) as tambur,
    ):
        assert tambur.publish("test", "x") is True


def test_a_long_retry_after_is_handed_to_the_caller() -> None:
    with FaultyServer(faults.response("503 No", "Retry-After: 11")) as server, publisher(server) as tambur:
        with pytest.raises(UnavailableError) as caught:
            tambur.publish("test", "x")
        assert caught.value.retry_after == 11
        assert len(server.received) == 1


def test_waits_together_stay_below_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_any_other_answer_is_an_error_at_once(
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
def test_an_unavailable_server_is_given_up_after_the_retries(status: int) -> None:
    busy = faults.response(f"{status} No", "Retry-After: 0", body=b"later")
    with FaultyServer(busy, busy) as server, publisher(server, max_retries=1) as tambur:
        with pytest.raises(UnavailableError, match=f"answered {status}: later \\(2 attempts\\)") as caught:
            tambur.publish("test", "x")
    assert caught.value.status == status
    assert caught.value.may_have_been_delivered


def test_a_doubtful_attempt_leaves_a_doubt() -> None:
    """The first may have been delivered, whatever the second is answered."""
    with FaultyServer(faults.drop, faults.response("401 No")) as server, publisher(server) as tambur:
        with pytest.raises(UnauthorizedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.attempts == 2
    assert caught.value.may_have_been_delivered


def test_a_captive_portals_page_is_no_success() -> None:
    page = b"<html><title>Please log in</title>"
    with FaultyServer(faults.response("200 OK", "Content-Type: text/html", body=page)) as server:
        with publisher(server) as tambur, pytest.raises(RejectedError, match="200: not the 204") as caught:
            tambur.publish("test", "x")
    assert caught.value.reason == page.decode()


LOCATIONS = [
    "http://127.0.0.1:1/",
    "http://[",
    "//",
    "\xff\xfe",
    "http://a:b:c/",
    "http://h:99999999/",
    "",
    "javascript:1",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_redirect_is_not_followed_wherever_it_leads(location: str) -> None:
    with FaultyServer(faults.response("301 Moved", f"Location: {location}")) as server:
        with (
            publisher(server) as tambur,
            pytest.raises(RejectedError, match="a redirect, which is not followed"),
        ):
            tambur.publish("test", "x")
        assert len(server.received) == 1


def test_a_server_that_hangs_is_not_asked_again() -> None:
    with FaultyServer(faults.hang) as server, publisher(server) as tambur:
        with pytest.raises(TimedOutError, match="no answer within 0.2 s") as caught:
            tambur.publish("test", "x", timeout=0.2)
        assert isinstance(caught.value, requests.Timeout)
        assert caught.value.attempts == len(server.received) == 1
        assert caught.value.may_have_been_delivered


def test_the_timeout_of_one_publish_goes_before_the_clients() -> None:
    with FaultyServer(faults.hang) as server, publisher(server, timeout=(1, 0.1)) as tambur:
        with pytest.raises(TimedOutError, match="no answer within 0.1 s"):
            tambur.publish("test", "x")
        assert tambur.publish("test", "x", timeout=(1, 10)) is True


def test_a_broken_reason_is_given_as_far_as_it_came() -> None:
    half = faults.answer_and_close(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nwrong sig")
    with FaultyServer(half) as server, publisher(server) as tambur:
        with pytest.raises(UnauthorizedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.reason.startswith("wrong sig")


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    endless = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n"
    with FaultyServer(faults.answer(endless)) as server, publisher(server) as tambur:
        with pytest.raises(RejectedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.reason == "x" * 2048


GARBAGE = [
    b"\x00\xff\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 999999 No\r\n\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 204 No Content\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
    b"HTTP/1.1 500 Oops\r\nContent-Length: 5, 6\r\n\r\nhello",
    b"HTTP/1.1 500 Oops\r\nContent-Length: x\r\n\r\nhello",
    b"HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    b"HTTP/1.1 500 \xff\xfe\r\nContent-Type: text/plain; charset=nonsense\r\nContent-Length: 1\r\n\r\n\xff",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_whatever_is_answered_the_error_is_ours(garbage: bytes) -> None:
    with FaultyServer(faults.answer_and_close(garbage)) as server:
        with publisher(server, max_retries=0) as tambur, pytest.raises(PublishError) as caught:
            tambur.publish("test", "x")
    assert caught.value.stream == "test"
    assert caught.value.may_have_been_delivered


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_no_server_is_said_so() -> None:
    with (
        Tambur("k", "a", "s", f"127.0.0.1:{free_port()}") as tambur,
        pytest.raises(
            ConnectionFailedError, match=r"Connection refused; is it running.*\(3 attempts\)"
        ) as caught,
    ):
        tambur.publish("test", "x")
    assert isinstance(caught.value, requests.ConnectionError)
    assert caught.value.attempts == 3
    assert not caught.value.may_have_been_delivered


def test_a_name_without_an_address_is_said_so() -> None:
    with Tambur("k", "a", "s", "tambur.invalid", max_retries=0) as tambur:
        with pytest.raises(ConnectionFailedError, match="no connection to the server") as caught:
            tambur.publish("test", "x")
    assert not caught.value.may_have_been_delivered


def test_a_server_that_accepts_nobody_is_tried_again() -> None:
    """Its backlog is full, so connecting takes longer than anybody waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        with Tambur("k", "a", "s", f"127.0.0.1:{port}", max_retries=1) as tambur:
            with pytest.raises(TimedOutError, match="no connection within 0.1 s") as caught:
                tambur.publish("test", "x", timeout=(0.1, 5))
        for filler in fillers:
            filler.close()
    assert caught.value.attempts == 2
    assert not caught.value.may_have_been_delivered


def test_a_proxy_that_has_read_the_request_may_have_delivered_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer(faults.drop) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        with Tambur("key", "app", "secret", "tambur.example.com", max_retries=0) as tambur:
            with pytest.raises(ConnectionFailedError, match="broke before the answer") as caught:
                tambur.publish("test", "x")
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
def test_an_exception_that_the_caller_handles_has_no_part_in_ours(handled: Exception) -> None:
    """As where a publish is what is done about a failure, to another server for instance."""
    with FaultyServer(*[faults.drop] * 3) as server, publisher(server) as tambur:
        try:
            raise handled
        except type(handled):
            with pytest.raises(ConnectionFailedError, match="broke before the answer") as caught:
                tambur.publish("test", "x")
    assert (caught.value.attempts, caught.value.may_have_been_delivered) == (3, True)
    assert "another" not in str(caught.value)


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "hex", "a\0b", "none"])
def test_a_charset_that_is_none_for_text_hides_no_answer(charset: str) -> None:
    refusal = faults.response("500 Oh", f"Content-Type: text/plain; charset={charset}", body=b"\xff no")
    with FaultyServer(refusal) as server, publisher(server) as tambur:
        with pytest.raises(RejectedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.reason.endswith(" no")
    assert caught.value.response is not None
    assert caught.value.response.text.endswith(" no")


def test_a_proxy_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:proxy-password@127.0.0.1:{free_port()}")
    with Tambur("k", "a", "s", "tambur.example", max_retries=0) as tambur:
        with pytest.raises(ConnectionFailedError, match="the proxy does not connect") as caught:
            tambur.publish("test", "x")
    assert not caught.value.may_have_been_delivered
    assert "proxy-password" not in str(caught.value)


class TlsServer(FaultyServer):
    """Answers with a certificate that nobody has heard of."""

    def _serve(self, connection: socket.socket, number: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        try:
            wrapped = context.wrap_socket(connection, server_side=True)
        except (ssl.SSLError, OSError):
            self._open.discard(connection)
            connection.close()
            return
        super()._serve(wrapped, number)


def test_an_untrusted_certificate_is_not_tried_again() -> None:
    with TlsServer() as server, publisher(server, ssl=True) as tambur:
        with pytest.raises(ConnectionFailedError, match="TLS failed: .*certificate verify failed") as caught:
            tambur.publish("test", "x")
        assert server.connections == caught.value.attempts == 1
    assert not caught.value.may_have_been_delivered


def test_tls_where_there_is_none_is_said_so() -> None:
    with FaultyServer() as server, publisher(server, ssl=True, timeout=1) as tambur:
        # The server takes the handshake for the beginning of a request, and waits for the rest.
        with pytest.raises(PublishError):
            tambur.publish("test", "x")
        assert server.received == []


def test_a_missing_ca_bundle_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle")
    with Tambur("k", "a", "s", f"https://127.0.0.1:{free_port()}") as tambur:
        with pytest.raises(ConnectionFailedError, match="/no/such/bundle") as caught:
            tambur.publish("test", "x")
    assert caught.value.attempts == 1


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
def test_every_exception_of_the_layers_below_becomes_one_of_ours(kind: type[BaseException]) -> None:
    error = kind.__new__(kind)
    error.args = ("something",)
    with requests.Session() as session:
        session.mount("http://", RaisingAdapter(lambda: error))
        tambur = Tambur("k", "a", "s", "h", session=session, max_retries=0)
        with pytest.raises((ConnectionFailedError, TimedOutError)) as caught:
            tambur.publish("test", "x")
    timeouts = (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError)
    assert isinstance(caught.value, requests.Timeout) or not issubclass(kind, timeouts)


def test_what_is_no_exception_of_theirs_is_a_bug_and_passes() -> None:
    with requests.Session() as session:
        session.mount("http://", RaisingAdapter(lambda: KeyError("bug")))
        with pytest.raises(KeyError):
            Tambur("k", "a", "s", "h", session=session).publish("test", "x")
