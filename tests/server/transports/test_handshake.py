"""The headers of a handshake, whatever they contain."""

from __future__ import annotations

import pytest

from tambur.server import Server

from ...support.wire import SUBSCRIBE_PATH, ask, handshake


@pytest.mark.parametrize(
    "name",
    ["connection", *(f"sec-websocket-{x}" for x in ("version", "key", "extensions", "protocol"))],
)
def test_a_header_of_the_handshake_that_is_not_ascii_is_refused(
    server: Server, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    sent = handshake(SUBSCRIBE_PATH, f"{name}: Upgrade, \xcd")
    answer = ask(server, sent.replace(b"Connection: Upgrade\r\n", b"") if name == "connection" else sent)
    assert (answer.status, answer.body) == (400, f"{name} must be ASCII\n".encode())
    assert caplog.records == []


def test_cookies_need_not_be_ascii(server: Server) -> None:
    assert ask(server, handshake(SUBSCRIBE_PATH, "Cookie: a=\xcd")).status == 101
