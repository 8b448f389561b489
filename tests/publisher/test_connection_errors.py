"""The errors of a publish that reaches no server: they name the address, the reason and what to check."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tambur import ConfigurationError, ConnectionFailedError, PublishError, Tambur, TimedOutError
from tambur.server import Server

from ..support import faults
from ..support.certificate import Certificate
from ..support.faults import FaultyServer, tls_context
from ..support.ports import free_port


def publish_to(api_host: str, **options: object) -> PublishError:
    """The error of a publish to this host."""
    with Tambur("key", "app", "secret", api_host, **options) as tambur, pytest.raises(PublishError) as caught:  # type: ignore[arg-type]
        tambur.publish("test", "x")
    return caught.value


def text(error: PublishError) -> str:
    return str(error).removeprefix("publishing to 'test' failed: ")


def test_a_refused_connection_names_the_address_and_asks_for_the_server() -> None:
    error = publish_to(host := f"127.0.0.1:{free_port()}")
    assert text(error) == (
        f"cannot connect to {host}: connection refused; is `tambur serve` running there? (3 attempts)"
    )
    assert type(error) is ConnectionFailedError
    assert isinstance(error, requests.ConnectionError)
    assert error.attempts == 3
    assert not error.may_have_been_delivered


@pytest.mark.parametrize(("api_host", "port"), [("tambur.invalid", 80), ("https://tambur.invalid", 443)])
def test_an_unknown_host_name_is_named_with_the_port(api_host: str, port: int) -> None:
    error = publish_to(api_host, max_retries=0)
    assert text(error).startswith(f"cannot connect to tambur.invalid:{port}: cannot resolve the host name (")
    assert text(error).endswith("); is it spelled correctly?")
    assert not error.may_have_been_delivered


def test_a_connection_that_takes_too_long_names_the_timeout() -> None:
    """The server's backlog is full."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        error = publish_to(f"127.0.0.1:{port}", max_retries=1, timeout=(0.1, 5))
    assert text(error) == (
        f"cannot connect to 127.0.0.1:{port} within 0.1 s; is the host reachable from here? (2 attempts)"
    )
    assert type(error) is TimedOutError
    assert error.attempts == 2
    assert not error.may_have_been_delivered


def test_a_server_that_does_not_answer_is_named_without_a_retry() -> None:
    with FaultyServer(faults.hang) as server:
        error = publish_to(server.host, timeout=(60, 0.2))
        server.wait(1)
        assert text(error) == f"{server.host} did not answer within 0.2 s"
        assert isinstance(error, requests.Timeout)
        assert error.attempts == len(server.received) == 1
        assert error.may_have_been_delivered


def test_the_timeout_of_a_publish_overrides_that_of_the_client() -> None:
    with FaultyServer(faults.hang) as server, Tambur("k", "a", "s", server.host, timeout=(60, 0.1)) as tambur:
        with pytest.raises(TimedOutError, match="did not answer within 0.1 s"):
            tambur.publish("test", "x")
        server.wait(1)
        assert tambur.publish("test", "x", timeout=60) is True


def test_a_connection_that_breaks_names_the_server() -> None:
    with FaultyServer(faults.drop) as server:
        error = publish_to(server.host, max_retries=0)
    assert text(error) == (
        f"the connection to {server.host} broke before the answer: the server closed it; "
        "does the server expect https?"
    )
    assert error.may_have_been_delivered


def test_a_refusal_names_the_server() -> None:
    with FaultyServer(faults.response("401 Unauthorized", body=b"wrong signature")) as server:
        assert text(publish_to(server.host)) == f"{server.host} answered 401: wrong signature"


def test_an_untrusted_certificate_names_the_variable_for_ones_own_authority(tmp_path: Path) -> None:
    with FaultyServer(tls=tls_context(Certificate(tmp_path))) as server:
        error = publish_to(f"https://{server.host}")
        assert server.connections == error.attempts == 1
    assert text(error).startswith(
        f"cannot connect to {server.host}: TLS failed: certificate verify failed: unable to get local issuer"
    )
    assert text(error).endswith("; if you issued it, name your authority's file in REQUESTS_CA_BUNDLE")
    assert not error.may_have_been_delivered


def test_a_certificate_for_another_host_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = Certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate.authority)
    with FaultyServer(tls=tls_context(certificate)) as server:
        host = server.host.replace("127.0.0.1", "localhost")
        error = publish_to(f"https://{host}")
    said = text(error).removeprefix(f"cannot connect to {host}: TLS failed: ")
    assert said in (
        "certificate verify failed: Hostname mismatch, certificate is not valid for 'localhost'.",
        "CertificateError",  # of urllib3 1.26, which compares the names itself
    )


def test_tls_to_a_plain_server_asks_for_the_port(server: Server) -> None:
    error = publish_to(server.url.replace("http:", "https:"))
    assert text(error).startswith(f"cannot connect to {server.url.removeprefix('http://')}: TLS failed: ")
    assert text(error).endswith("; does the server use TLS on this port?")
    assert error.attempts == 1


def test_tls_to_a_plain_server_that_waits_is_an_error() -> None:
    with FaultyServer() as server, Tambur("k", "a", "s", server.host, ssl=True, timeout=0.1) as tambur:
        # The server reads the handshake as the beginning of a request, and waits for the rest.
        with pytest.raises(PublishError):
            tambur.publish("test", "x")
        assert server.received == []


def test_plain_http_to_a_tls_server_suggests_https(tmp_path: Path) -> None:
    with FaultyServer(tls=tls_context(Certificate(tmp_path))) as server:
        error = publish_to(server.host, max_retries=0)
    assert text(error).startswith(f"the connection to {server.host} broke before the answer: ")
    assert text(error).endswith("; does the server expect https?")


def test_a_missing_ca_bundle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle")
    with Tambur("k", "a", "s", f"https://127.0.0.1:{free_port()}") as tambur:
        with pytest.raises(ConnectionFailedError, match="/no/such/bundle") as caught:
            tambur.publish("test", "x")
    assert caught.value.attempts == 1


def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", f"http://user:proxy-password@{proxy}")
    error = publish_to("tambur.example", max_retries=0)
    assert text(error) == (
        f"cannot connect to the proxy {proxy} of tambur.example:80: connection refused; "
        "check the proxy's address, or name the server in no_proxy"
    )
    assert not error.may_have_been_delivered


def test_a_proxy_that_refuses_is_named_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer(faults.answer_and_close(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:proxy-password@{proxy.host}")
        error = publish_to("https://tambur.example", max_retries=0)
    assert text(error) == f"the proxy {proxy.host} does not connect to tambur.example:443: 403 Forbidden"


@pytest.mark.parametrize("password", ["proxy-password", "proxy/password", "proxy@password"])
def test_an_answer_through_a_proxy_names_the_proxy(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer(faults.response("502 Bad Gateway", body=b"no route")) as proxy:
        quoted = quote(password, safe="")
        monkeypatch.setenv("http_proxy", f"http://user:{quoted}@{proxy.host}")
        error = publish_to("tambur.example", max_retries=0)
    assert text(error) == f"tambur.example:80 (through the proxy {proxy.host}) answered 502: no route"


@pytest.mark.parametrize(
    "proxy", ["http://user:proxy/password@h:1", "http://user:proxy-password@", "http://[", "x:y:z"]
)
def test_an_invalid_proxy_is_refused_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigurationError, match="the proxy's URL.* is invalid; it must be") as caught:
        Tambur("key", "app", "secret", "tambur.example")
    assert "password" not in repr(caught.value)


def test_a_proxy_that_has_read_the_request_may_have_delivered_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer(faults.drop) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        with Tambur("key", "app", "secret", "tambur.example.com", max_retries=0) as tambur:
            with pytest.raises(ConnectionFailedError, match="broke before the answer") as caught:
                tambur.publish("test", "x")
        assert caught.value.may_have_been_delivered
