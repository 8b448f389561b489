"""The POST of a webhook, against servers that misbehave."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from pathlib import Path

import pytest

from tambur.server.webhooks import client
from tambur.server.webhooks.client import RequestFailedError, post

from ...support.certificate import Certificate
from ...support.faults import FaultyServer, answer_and_close, drop, hang, reset, response, tls_context
from ...support.ports import free_port

CLOSED = "Connection: close"


def send(url: str, *, timeout_s: float = 30) -> int:
    return asyncio.run(post(url, {"webhook-id": "msg_1"}, b'{"a":1}', timeout_s=timeout_s))


def test_the_whole_request_is_sent() -> None:
    with FaultyServer() as server:
        assert send(f"http://{server.host}/hook/%C3%A4?token=1&x") == 204
        (received,) = server.received
        assert received.head.decode().split("\r\n") == [
            "POST /hook/%C3%A4?token=1&x HTTP/1.1",
            f"Host: {server.host}",
            "User-Agent: Tambur",
            "Connection: close",
            "Content-Length: 7",
            "webhook-id: msg_1",
            "",
            "",
        ]
        assert received.body == b'{"a":1}'


@pytest.mark.parametrize(
    "status", ["200 OK", "202", "404 Not Found", "500 Internal Server Error", "302 Found"]
)
def test_the_status_is_returned_and_no_redirect_followed(status: str) -> None:
    with FaultyServer() as target:
        redirect = response(status, CLOSED, f"Location: http://{target.host}/", body=b"x" * 1000)
        with FaultyServer(redirect) as server:
            assert send(f"http://{server.host}") == int(status[:3])
        assert target.received == []


def test_interim_answers_are_passed_over() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    with FaultyServer(answer_and_close(data)) as server:
        assert send(f"http://{server.host}/") == 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the receiver closed the connection"),
        (b"HTTP/1.1 200", "the receiver closed the connection"),
        (b"HTTP/2 200 OK\r\n\r\n", "the answer is not HTTP/1.1"),
        (b"HTTP/1.1 OK\r\n\r\n", "the answer is not HTTP/1.1"),
        (b"SSH-2.0-x\r\n\r\n", "the answer is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", "the answer is not HTTP/1.1"),
    ],
)
def test_an_answer_that_is_not_http_is_a_failure(data: bytes, reason: str) -> None:
    with FaultyServer(answer_and_close(data)) as server:
        with pytest.raises(RequestFailedError, match=f"^{reason}$"):
            send(f"http://{server.host}/")


def test_a_broken_or_refused_connection_is_a_failure() -> None:
    with FaultyServer(reset) as server:
        with pytest.raises(RequestFailedError, match="Connection reset|Connection lost|Broken pipe"):
            send(f"http://{server.host}/")
    with pytest.raises(RequestFailedError, match="Connect"):
        send(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(RequestFailedError, match=r".+"):
        send("http://nowhere.invalid/")


def test_a_receiver_that_hangs_is_given_up() -> None:
    with FaultyServer(hang) as server:
        with pytest.raises(RequestFailedError, match="no answer within 0.05 s"):
            send(f"http://{server.host}/", timeout_s=0.05)


def test_a_receiver_that_sends_a_byte_at_a_time_is_given_up() -> None:
    def drip(connection: socket.socket) -> bool:
        while True:  # until the client is gone
            connection.sendall(b"x")

    with FaultyServer(drip) as server:
        with pytest.raises(RequestFailedError, match="no answer within|not HTTP"):
            send(f"http://{server.host}/", timeout_s=0.05)


def test_each_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as server:
        port = int(server.host.rpartition(":")[2])
        found = [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.3", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert send(f"http://receiver.example:{port}/") == 204
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:2])
        with pytest.raises(RequestFailedError, match="Connect"):
            send(f"http://receiver.example:{port}/")


def test_a_look_up_that_hangs_is_given_up_and_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        ended.wait(60)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(RequestFailedError, match="no answer within 0.05 s"):
        send("http://receiver.example/", timeout_s=0.05)
    assert not ended.is_set()
    ended.set()


def test_a_status_counts_even_if_the_rest_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_ON_S", 0.01)

    def answer(connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        return hang(connection)

    with FaultyServer(answer) as server:
        assert send(f"http://{server.host}/") == 200


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as proxy, FaultyServer() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.host}")
        assert send(f"http://{server.host}/") == 204
        assert proxy.received == []


def test_a_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = Certificate(tmp_path)
    with FaultyServer(tls=tls_context(certificate)) as server:
        client.load_tls.cache_clear()
        with pytest.raises(RequestFailedError, match="TLS failed: (unable to get|self.signed)"):
            send(f"https://{server.host}/")
        monkeypatch.setenv("SSL_CERT_FILE", certificate.authority)
        client.load_tls.cache_clear()
        with pytest.raises(RequestFailedError, match="TLS failed: .*mismatch"):
            send(f"https://localhost:{server.host.rpartition(':')[2]}/")
        assert server.received == []
        assert send(f"https://{server.host}/") == 204
    client.load_tls.cache_clear()


def test_nothing_is_logged_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), FaultyServer(drop) as server:
        with pytest.raises(RequestFailedError):
            send(f"http://{server.host}/hidden?token=hunter2")
    assert caplog.text == ""
