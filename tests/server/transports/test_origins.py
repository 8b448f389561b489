"""``allowed_origins``: which pages may subscribe by long polling, and ask the balancer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tambur.server import App, Config, Server, in_background
from tests.support.app import API_KEY, APP_ID, SECRET

from ...support.wire import SUBSCRIBE_PATH, Answer, ask

ORIGIN = "https://www.example.com"
ORIGIN_LINE = f"Origin: {ORIGIN}"
REFERER_LINE = f"Referer: {ORIGIN}/chat?room=1"


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server whose app accepts the pages of one origin."""
    app = App(API_KEY, APP_ID, (SECRET,), allowed_origins=(ORIGIN, "http://[::1]:8000"))
    with in_background(Config(apps=(app,), port=0)) as running:
        yield running


def get(server: Server, path: str, *headers: str, query: str = "") -> Answer:
    lines = [f"GET {path}?instance=7&callback=f&ts=1{query} HTTP/1.1", "Host: h", *headers, "", ""]
    return ask(server, "\r\n".join(lines).encode("latin-1"))


PATHS = [SUBSCRIBE_PATH, f"/comet{SUBSCRIBE_PATH}", f"/comet{SUBSCRIBE_PATH}/some-subscriber"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        (["Origin: https://evil.example"], "https://evil.example"),
        (["Referer: https://evil.example/page?secret"], "https://evil.example"),
        (["Referer: https://evil.example"], "https://evil.example"),
        ([f"Referer: https://evil.example/{ORIGIN}/"], "https://evil.example"),
        ([f"Referer: {ORIGIN}.evil.example/"], f"{ORIGIN}.evil.example"),
        ([f"Referer: {ORIGIN}:8443/"], f"{ORIGIN}:8443"),
        ([f"Referer: {ORIGIN}@evil.example/"], "null"),
        (["Referer: http://www.example.com/"], "http://www.example.com"),
        (["Referer: www.example.com/"], "null"),
        (["Referer: "], "null"),
        (["Origin: null"], "null"),
        ([ORIGIN_LINE, "Origin: https://evil.example"], "https://evil.example"),
        ([ORIGIN_LINE, "Referer: https://evil.example/"], "https://evil.example"),
        ([REFERER_LINE, "Origin: https://evil.example"], "https://evil.example"),
        ([REFERER_LINE, "Referer: https://evil.example/"], "https://evil.example"),
        ([f"Referer: https://\xe9vil.example/{'x' * 7000}"], "https://\\xe9vil.example"),
    ],
)
def test_a_page_of_another_origin_is_refused(
    strict: Server, path: str, headers: list[str], shown: str
) -> None:
    answer = get(strict, path, *headers)
    assert answer.status == 403
    assert answer.body == f"pages of '{shown}' may not subscribe to this app\n".encode()


@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_names_no_page_is_refused(strict: Server, path: str) -> None:
    answer = get(strict, path)
    assert answer.status == 403
    assert answer.body.startswith(b"the request has neither an Origin nor a Referer header")


@pytest.mark.parametrize(
    "header",
    [
        ORIGIN_LINE,
        REFERER_LINE,
        f"Referer: {ORIGIN}",
        f"Referer: {ORIGIN.upper()}/",
        f"Referer: {ORIGIN}?query",
        "Referer: http://[::1]:8000/",
    ],
)
def test_a_page_of_an_allowed_origin_may_ask_and_poll(strict: Server, header: str) -> None:
    assert get(strict, SUBSCRIBE_PATH, header).body == f'/**/f(7, "h{SUBSCRIBE_PATH}")'.encode()
    greeting = get(strict, f"/comet{SUBSCRIBE_PATH}", header).body.decode()
    subscriber_id = greeting.removeprefix('/**/f(7, "id:').removesuffix('")')
    path = f"/comet{SUBSCRIBE_PATH}/{subscriber_id}"
    command = quote(json.dumps(["subscribe", 1, "s"]))
    # Anyone who has learned the URL of a poll also needs the header.
    assert get(strict, path, query=f"&data={command}").status == 403
    assert get(strict, path, header, query=f"&data={command}").body == b'/**/f(7, ["ack",1,"ok"])'
    assert get(strict, path, header, query="&data=fin").status == 200


@pytest.mark.parametrize("path", PATHS[:2])
def test_without_allowed_origins_every_page_may_ask_and_poll(server: Server, path: str) -> None:
    for headers in ([], ["Origin: null"], ["Referer: nonsense"], ["Origin: https://evil.example"]):
        assert get(server, path, *headers).status == 200


@pytest.mark.parametrize("path", PATHS[:2])
def test_an_app_may_allow_no_page_at_all(path: str) -> None:
    app = App(API_KEY, APP_ID, (SECRET,), allowed_origins=())
    with in_background(Config(apps=(app,), port=0)) as server:
        assert get(server, path, ORIGIN_LINE).status == 403
