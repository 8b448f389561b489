"""The bytes that a publish writes to its connections."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from tambur import Tambur

from ..support.certificate import Certificate
from ..support.faults import FaultyServer, tls_context


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every write to a socket or TLS connection that begins like a publish, or like its body."""
    pieces: list[bytes] = []
    for kind in (socket.socket, ssl.SSLSocket):

        def sendall(self: Any, data: bytes, *flags: int, original: Any = kind.sendall) -> None:
            if bytes(data).startswith((b"POST", b"api_version")):
                pieces.append(bytes(data))
            original(self, data, *flags)

        monkeypatch.setattr(kind, "sendall", sendall)
    return pieces


def check(sent: list[bytes], server: FaultyServer) -> None:
    whole = sent[-1]
    assert whole.startswith(b"POST ")
    assert whole.endswith(server.received[-1].body)


def test_a_request_is_written_in_one_piece(sent: list[bytes]) -> None:
    with FaultyServer() as server, Tambur("key", "app", "secret", server.host) as tambur:
        for count in (1, 2):
            tambur.publish("test", "x" * 10_000)
            assert len(sent) == count
            check(sent, server)


def test_a_request_to_a_proxy_is_written_in_one_piece(
    sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        with Tambur("key", "app", "secret", "tambur.example") as tambur:
            tambur.publish("test", "x")
            tambur.publish("test", "y")
        assert len(sent) == 2
        check(sent, proxy)


def test_a_request_over_tls_is_written_in_one_record(
    sent: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate.authority)
    with (
        FaultyServer(tls=tls_context(certificate)) as server,
        Tambur("key", "app", "secret", f"https://{server.host}") as tambur,
    ):
        tambur.publish("test", "x")
        assert len(sent) == 1
        check(sent, server)


def test_tools_may_replace_the_connection_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that record requests do so for a while, before or after the first publish."""
    recorded = []

    class Recording(HTTPConnection):
        def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
            recorded.append((method, url))
            super().request(method, url, *args, **kwargs)

    with FaultyServer() as server, Tambur("key", "app", "secret", server.host) as tambur:
        tambur.publish("test", "x")
        tambur.close()
        with monkeypatch.context() as patch:
            patch.setattr(HTTPConnectionPool, "ConnectionCls", Recording)
            tambur.publish("test", "y")
            tambur.close()
        tambur.publish("test", "z")
        assert recorded == [("POST", "/app/app/stream/test")]
        assert len(server.received) == 3
