"""The balancer: section 5 of the protocol."""

from __future__ import annotations

import pytest

from tambur.server import Server

from ...support.wire import SUBSCRIBE_PATH, ask


def test_the_balancer_names_the_host_that_was_asked(server: Server) -> None:
    answer = ask(
        server,
        f"GET {SUBSCRIBE_PATH}?instance=3&callback=a.b HTTP/1.1\r\nHost: Push.example:80\r\n\r\n".encode(),
    )
    assert answer.status == 200
    assert answer.body == f'/**/a.b(3, "Push.example:80{SUBSCRIBE_PATH}")'.encode()
    assert answer.headers["content-type"] == "application/javascript"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


HOSTILE = ["", "1", "a-b", "a;b", "a(b", "<script>", "alert(1)//", "a" * 101, "é", "a%0a", "a b", "[0]"]


@pytest.mark.parametrize("path", [SUBSCRIBE_PATH, f"/comet{SUBSCRIBE_PATH}"])
@pytest.mark.parametrize("callback", HOSTILE)
def test_an_invalid_callback_is_400(server: Server, path: str, callback: str) -> None:
    request = f"GET {path}?instance=1&callback={callback} HTTP/1.1\r\nHost: h\r\n\r\n"
    answer = ask(server, request.replace("a b", "a+b").replace("é", "%C3%A9").encode())
    assert answer.status == 400
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("instance", ["", "-1", "1.0", "x", "1;x", "1" * 21, "%D9%A3"])
def test_an_invalid_instance_is_400(server: Server, instance: str) -> None:
    answer = ask(
        server, f"GET {SUBSCRIBE_PATH}?instance={instance}&callback=f HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    )
    assert answer.status == 400


@pytest.mark.parametrize("host", ["", "<script>", 'h"', "h/x", "h, i", "user@h"])
def test_an_invalid_host_is_400(server: Server, host: str) -> None:
    answer = ask(
        server, f"GET {SUBSCRIBE_PATH}?instance=1&callback=f HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    )
    assert answer.status == 400
