"""One attempt: its connections, its session, and how much of an answer it reads."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from tambur import PublishError, RejectedError, Tambur, UnauthorizedError
from tambur.protocol.oauth import parse_form

from ..support import faults
from ..support.faults import FaultyServer, publisher


def test_publishes_share_a_connection() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        for _ in range(5):
            tambur.publish("test", "x")
        assert {request.connection for request in server.received} == {1}


def test_a_connection_closed_while_idle_is_replaced() -> None:
    with FaultyServer(faults.ok_then_close) as server, publisher(server) as tambur:
        tambur.publish("test", "first")
        assert server.closed.get(timeout=faults.TIMEOUT_S) == 1
        assert tambur.publish("test", "second") is True
        assert [request.connection for request in server.received] == [1, 2]


def test_close_closes_connections_even_if_the_caller_keeps_an_error() -> None:
    with FaultyServer(faults.response("401 No")) as server:
        tambur = publisher(server)
        with pytest.raises(UnauthorizedError) as kept:
            tambur.publish("test", "x")
        tambur.publish("test", "y")
        assert server.connections == 1
        tambur.close()
        assert server.closed.get(timeout=faults.TIMEOUT_S) == 1
        assert kept.value.response is not None


def test_publishing_after_close_opens_a_new_connection() -> None:
    with FaultyServer() as server:
        tambur = publisher(server)
        tambur.publish("test", "x")
        tambur.close()
        assert server.closed.get(timeout=faults.TIMEOUT_S) == 1
        tambur.publish("test", "x")
        assert [request.connection for request in server.received] == [1, 2]
        tambur.close()


FORK = """
import os, sys, requests
from tambur import Tambur
for host, session in zip(sys.argv[1:], (None, requests.Session())):
    tambur = Tambur("key", "app", "s", host, session=session)
    tambur.publish("test", "before")
    child = os.fork()
    for i in range(20):
        tambur.publish("test", "child" if child == 0 else "parent")
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_does_not_share_its_parents_connections() -> None:
    """Neither those of its own session nor those of one that the application lends."""
    with FaultyServer() as own, FaultyServer() as lent:
        subprocess.run([sys.executable, "-c", FORK, own.host, lent.host], check=True, timeout=60)
        for server in (own, lent):
            by_connection: dict[int, set[bytes]] = {}
            for request in server.received:
                message = dict(parse_form(request.body))[b"message"]
                by_connection.setdefault(request.connection, set()).add(message)
            assert sorted(by_connection.values(), key=len) == [{b"child"}, {b"before", b"parent"}]
            assert len(server.received) == 41


def test_netrc_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login netrc-user password netrc-password\n")
    monkeypatch.setenv("NETRC", str(netrc))
    redirect = faults.response("301 Moved", "Location: http://127.0.0.1:1/elsewhere")
    with FaultyServer(faults.ok, faults.response("401 No"), redirect) as server, publisher(server) as tambur:
        tambur.publish("test", "x")
        for status in (401, 301):
            with pytest.raises(RejectedError) as caught:
                tambur.publish("test", "x")
            assert caught.value.status == status
        assert all(b"authorization" not in request.head.lower() for request in server.received)
        assert len(server.received) == 3


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        with Tambur("k", "a", "s", "tambur.example") as tambur:
            tambur.publish("test", "x")
        assert proxy.received[0].head.startswith(b"POST http://tambur.example/app/a/stream/test HTTP/1.1\r\n")
        with FaultyServer() as server:
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            with publisher(server) as tambur:
                tambur.publish("test", "x")
            assert len(server.received) == 1
        assert len(proxy.received) == 1


def test_a_lent_session_supplies_the_proxies() -> None:
    with FaultyServer() as proxy, requests.Session() as session:
        session.proxies = {"http": f"http://{proxy.host}"}
        Tambur("k", "a", "s", "tambur.example", session=session).publish("test", "x")
        assert proxy.received[0].head.startswith(b"POST http://tambur.example/")


class RecordingAdapter(HTTPAdapter):
    """Records the certificate settings of each request, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_with: list[tuple[Any, Any]] = []
        self.closed = False

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.sent_with.append((kwargs["verify"], kwargs["cert"]))
        return super().send(*args, **kwargs)

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.mark.parametrize("verify", [True, False, "/a/ca-bundle"])
def test_a_lent_session_is_used_and_not_changed(
    verify: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "client.pem"
    certificate.touch()
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    adapter = RecordingAdapter()
    with requests.Session() as session:
        session.mount("http://", adapter)
        session.headers["X-Own"] = "1"
        session.verify = verify
        session.cert = str(certificate)
        session.auth = ("user", "password")
        before = pickle.dumps(session)
        with FaultyServer(faults.response("204 No Content", "Set-Cookie: a=b; Path=/")) as server:
            with publisher(server, session=session) as tambur:
                tambur.publish("test", "x")
                tambur.publish("test", "x")
            assert adapter.sent_with == [(verify, str(certificate))] * 2
            assert not adapter.closed
            assert pickle.dumps(session) == before
            assert len(session.cookies) == 0
            assert b"X-Own" not in server.received[0].head
            assert b"Authorization" not in server.received[0].head
            assert b"Cookie" not in server.received[1].head


def test_a_lent_session_overrides_the_ca_bundle_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/env/bundle")
    adapter = RecordingAdapter()
    with FaultyServer() as server, requests.Session() as session:
        session.mount("http://", adapter)
        session.verify = False
        publisher(server, session=session).publish("test", "x")
    assert adapter.sent_with == [(False, None)]


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
def test_no_redirect_is_followed(location: str) -> None:
    with FaultyServer(faults.response("301 Moved", f"Location: {location}")) as server:
        with (
            publisher(server) as tambur,
            pytest.raises(RejectedError, match="a redirect, which is not followed"),
        ):
            tambur.publish("test", "x")
        assert len(server.received) == 1


def test_the_received_part_of_a_broken_reason_is_shown() -> None:
    half = faults.answer_and_close(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nwrong sig")
    with FaultyServer(half) as server, publisher(server) as tambur:
        with pytest.raises(UnauthorizedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.reason.startswith("wrong sig")


def test_an_endless_answer_is_read_to_a_limit() -> None:
    endless = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n"
    with FaultyServer(faults.answer(endless)) as server, publisher(server) as tambur:
        with pytest.raises(RejectedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.reason == "x" * 2048


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "hex", "a\0b", "none"])
def test_a_reason_is_read_as_utf_8_whatever_charset_the_answer_names(charset: str) -> None:
    refusal = faults.response("500 Oh", f"Content-Type: text/plain; charset={charset}", body=b"\xff no")
    with FaultyServer(refusal) as server, publisher(server) as tambur:
        with pytest.raises(RejectedError) as caught:
            tambur.publish("test", "x")
    assert caught.value.reason.endswith(" no")
    assert caught.value.response is not None
    assert caught.value.response.text.endswith(" no")


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
def test_a_malformed_answer_raises_an_error_of_ours(garbage: bytes) -> None:
    with FaultyServer(faults.answer_and_close(garbage)) as server:
        with publisher(server, max_retries=0) as tambur, pytest.raises(PublishError) as caught:
            tambur.publish("test", "x")
    assert caught.value.stream == "test"
    assert caught.value.may_have_been_delivered
