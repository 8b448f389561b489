"""Access to the console, with requests made by hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from starlette.types import Message, Receive, Scope, Send

from tambur.server import Server
from tambur.server.console import access
from tambur.server.console.access import TOKEN_HEADER
from tambur.server.console.password import parse_hash

from ...support.certificate import Certificate
from ...support.console import FAST_HASH, PASSWORD, Viewer, console
from ...support.wire import TIMEOUT_S


@pytest.fixture(scope="module")
def local() -> Iterator[str]:
    """The URL of a console on loopback."""
    with console() as server:
        assert server.console_url is not None
        yield server.console_url


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The URL of a console that others can reach."""
    with console(console_host="0.0.0.0", console_insecure=True, console_password=FAST_HASH) as server:
        assert server.console_url is not None
        yield server.console_url.replace("0.0.0.0", "127.0.0.1")


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers={k.replace("_", "-"): v for k, v in headers.items()}, timeout=TIMEOUT_S)


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'any:{password}'.encode()).decode()}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9100", "[::1]:1"])
def test_loopback_hosts_are_answered(local: str, host: str) -> None:
    assert get(f"{local}/", Host=host).status_code == 200


@pytest.mark.parametrize("path", ["/", "/events", "/metrics", "/console.js", "/nothing"])
@pytest.mark.parametrize("host", ["rebound.example.com", "127.0.0.1.example.com", "", "x" * 5000])
def test_a_rebound_host_gets_nothing(local: str, path: str, host: str) -> None:
    answer = get(local + path, Host=host)
    assert answer.status_code == 421
    assert answer.text.startswith("the console answers loopback hosts only")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_another_sites_page_cannot_hold_connections(local: str, site: str) -> None:
    for path in ("/events", "/metrics"):
        assert get(local + path, Sec_Fetch_Site=site).status_code == 403
    assert get(f"{local}/", Sec_Fetch_Site=site).status_code == 200
    assert get(f"{local}/metrics", Sec_Fetch_Site="same-origin").status_code == 200


def test_a_change_needs_the_pages_origin_and_its_token(local: str) -> None:
    with contextlib.closing(Viewer(f"{local}/events")) as viewer:
        token = viewer.read("hello")["token"]
    right = {"Origin": local, TOKEN_HEADER: token}
    for wrong in (
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": local + ".example.com"},
        {TOKEN_HEADER: ""},
        {TOKEN_HEADER: token[:-1]},
        {TOKEN_HEADER: token + "é"},
    ):
        headers = {k: v.encode("utf-8") for k, v in (right | wrong).items()}
        assert requests.post(f"{local}/events", headers=headers, timeout=TIMEOUT_S).status_code == 403
    # The route takes no POST, so a request with both gets past the check and no further.
    assert requests.post(f"{local}/events", headers=right, timeout=TIMEOUT_S).status_code == 405


def test_each_answer_forbids_inline_scripts_frames_and_caching(local: str) -> None:
    for answer in (get(f"{local}/"), get(f"{local}/nothing"), get(f"{local}/", Host="rebound")):
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/events", "/metrics", "/console.js", "/nothing"])
@pytest.mark.parametrize(
    "authorization", ["", "Basic", "Basic é", "Basic bm9uZQ==", "Bearer x", f"Basic {PASSWORD}"]
)
def test_without_the_password_nothing_is_answered(guarded: str, path: str, authorization: str) -> None:
    answer = get(guarded + path, Authorization=authorization)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert answer.text == "the console needs its password\n"


def test_the_password_opens_the_console_under_any_host(guarded: str) -> None:
    for host in ("127.0.0.1", "console.example.com"):
        assert get(f"{guarded}/", Authorization=basic(PASSWORD), Host=host).status_code == 200
    assert get(f"{guarded}/metrics", Authorization=basic(PASSWORD)).status_code == 200


def test_a_wrong_password_is_logged_and_delays_the_next_check(
    guarded: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "WRONG_PASSWORD_PAUSE_S", 0.1)
    with caplog.at_level(logging.WARNING, "tambur.server"):
        began_at = time.monotonic()
        assert get(f"{guarded}/", Authorization=basic("wrong")).status_code == 401
        assert time.monotonic() - began_at >= 0.1
    logged = [record.getMessage() for record in caplog.records if "console" in record.getMessage()]
    assert logged == ["wrong console password client=127.0.0.1"]
    assert get(f"{guarded}/", Authorization=basic(PASSWORD)).status_code == 200


def test_with_a_password_and_a_certificate_the_console_speaks_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Certificate(tmp_path)
    settings = {"console_host": "0.0.0.0", "console_password": FAST_HASH}
    with console(tls_cert=certificate.both, **settings) as server:
        assert server.console_url is not None
        url = server.console_url.replace("0.0.0.0", "127.0.0.1")
        assert url.startswith("https://")
        for name, value in certificate.trusting.items():
            monkeypatch.setenv(name, value)
        assert get(f"{url}/", Authorization=basic(PASSWORD)).status_code == 200
        assert get(f"{url}/").status_code == 401


def test_the_console_ends_with_its_server() -> None:
    with console() as server:
        viewer = Viewer(f"{server.console_url}/events")
        viewer.read("hello")
    with pytest.raises(AssertionError, match="the events ended"):
        viewer.read("never")
    with pytest.raises(requests.ConnectionError):
        get(f"{server.console_url}/")


def test_a_server_without_a_console_has_no_observer(server: Server) -> None:
    assert server.console_url is None
    assert server._hub.counts.observer is None


def test_only_so_many_passwords_wait_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "WRONG_PASSWORD_PAUSE_S", 0.0)

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        raise AssertionError("a wrong password opened the console")

    console = access.Access(answer, is_local=False, password=parse_hash(FAST_HASH))
    headers = [(b"authorization", basic("wrong").encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("192.0.2.1", 1)}

    async def status() -> int:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await console(scope, receive, send)
        return int(sent[0]["status"])

    async def receive() -> Message:
        raise AssertionError("no body is read")

    async def whole() -> list[int]:
        return await asyncio.gather(*(status() for _ in range(access.MAX_WAITING + 2)))

    assert sorted(asyncio.run(whole())) == [401] * access.MAX_WAITING + [503] * 2
