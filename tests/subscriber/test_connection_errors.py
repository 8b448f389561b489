"""The errors of a subscriber that reaches no server: they name the address, the reason and what to check."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tambur import SubscriberClosedError
from tambur.server import Config, Server, in_background
from tambur.subscriber import Subscriber

from ..support import faults
from ..support.app import API_KEY, APP, APP_ID, subscriber
from ..support.certificate import Certificate
from ..support.faults import FaultyServer, tls_context
from ..support.ports import free_port


def text(api_host: str, timeout: float = 60.0) -> str:
    """The error of a subscriber that cannot connect."""
    with pytest.raises(SubscriberClosedError) as caught:
        Subscriber(API_KEY, APP_ID, api_host, timeout=timeout)
    assert caught.value.code is None
    assert str(caught.value).isprintable()
    return str(caught.value)


# A host name may have several addresses, whose errors asyncio joins.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_refused_connection_names_the_address_and_asks_for_the_server(host: str) -> None:
    port = free_port()
    refused = "connection refused; is `tambur serve` running there?"
    assert text(f"{host}:{port}") == f"cannot connect to {host}:{port}: {refused}"


@pytest.mark.parametrize(("api_host", "port"), [("tambur.invalid", 80), ("https://tambur.invalid", 443)])
def test_an_unknown_host_name_is_named_with_the_port(api_host: str, port: int) -> None:
    shown = text(api_host)
    assert shown.startswith(f"cannot connect to tambur.invalid:{port}: cannot resolve the host name (")
    assert shown.endswith("); is it spelled correctly?")


def test_an_invalid_host_name_is_named() -> None:
    assert text("a..b").startswith("cannot connect to a..b:80: its host name")


def test_a_server_that_does_not_answer_is_named_with_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        shown = text(host, timeout=0.2)
    assert shown == f"cannot connect to {host}: no connection within 0.2 s; is the host reachable from here?"


def test_an_untrusted_certificate_names_the_variable_for_ones_own_authority(tmp_path: Path) -> None:
    with FaultyServer(tls=tls_context(Certificate(tmp_path))) as server:
        shown = text(f"https://{server.host}")
    assert shown.startswith(
        f"cannot connect to {server.host}: TLS failed: certificate verify failed: unable to get local issuer"
    )
    assert shown.endswith("; if you issued it, name your authority's file in SSL_CERT_FILE")


def test_a_certificate_for_another_host_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = Certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", certificate.authority)
    with FaultyServer(tls=tls_context(certificate)) as server:
        host = server.host.replace("127.0.0.1", "localhost")
        assert text(f"https://{host}") == (
            f"cannot connect to {host}: TLS failed: certificate verify failed: "
            "Hostname mismatch, certificate is not valid for 'localhost'."
        )


def test_tls_to_a_plain_server_asks_for_the_port(server: Server) -> None:
    shown = text(server.url.replace("http:", "https:"))
    assert shown.startswith(f"cannot connect to {server.url.removeprefix('http://')}: TLS failed: ")
    assert shown.endswith("; does the server use TLS on this port?")


def test_a_plain_connection_to_a_tls_server_suggests_https(tmp_path: Path) -> None:
    with FaultyServer(tls=tls_context(Certificate(tmp_path))) as server:
        shown = text(server.host)
    assert shown.startswith(f"cannot connect to {server.host}: ")
    assert shown.endswith("; does the server expect https?")


def test_a_refusal_names_the_server() -> None:
    with FaultyServer(faults.response("403 Forbidden", body=b"no such origin")) as server:
        with pytest.raises(SubscriberClosedError) as caught:
            Subscriber(API_KEY, APP_ID, server.host)
    assert str(caught.value) == f"{server.host} answered 403: no such origin"
    assert caught.value.code == 403


def test_an_error_names_the_proxy_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ws_proxy", f"http://user:proxy-password@127.0.0.1:{free_port()}")
    assert text("tambur.example") == (
        "cannot connect to tambur.example:80: connection refused; "
        "check the proxy in the environment, or name the server in no_proxy"
    )


def test_a_proxy_that_refuses_is_shown_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer(faults.answer_and_close(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as proxy:
        monkeypatch.setenv("ws_proxy", f"http://user:proxy-password@{proxy.host}")
        shown = text("tambur.example")
    assert shown.startswith("cannot connect to tambur.example:80: ")
    assert "403" in shown
    assert shown.endswith("; check the proxy in the environment, or name the server in no_proxy")
    assert "password" not in shown


def test_the_end_of_a_connection_names_the_server() -> None:
    with in_background(Config(apps=(APP,), port=0)) as server:
        one = subscriber(server)
    with one, pytest.raises(SubscriberClosedError) as caught:
        one.receive(60)
    assert str(caught.value).startswith(f"{server.url.removeprefix('http://')} closed the connection: 1001")
