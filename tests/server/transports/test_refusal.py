"""A refused subscriber can read why, from a page of any origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import resources

import pytest

from tambur.server import App, Config, Server, in_background
from tambur.server.subscriptions import Result
from tests.conftest import API_KEY, APP_ID, SECRET

from ...support.wire import SUBSCRIBE_PATH, Answer, ask, handshake

ORIGIN_LINE = "Origin: https://www.example.com"


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server that refuses for each reason there is."""
    apps = (
        App(API_KEY, APP_ID, (SECRET,), allowed_origins=("https://www.example.com",)),
        App(API_KEY, "websockets-only", (SECRET,), long_polling=False),
    )
    with in_background(Config(apps=apps, port=0, public_hosts=("h",))) as running:
        yield running


def get(server: Server, path: str, *headers: str, host: str = "h") -> Answer:
    lines = [f"GET {path}?instance=7&callback=f HTTP/1.1", f"Host: {host}", *headers, "", ""]
    return ask(server, "\r\n".join(lines).encode())


def upgrade(server: Server, path: str, *headers: str, host: str = "h") -> Answer:
    return ask(server, handshake(path, *headers, host=host))


def poll(server: Server, path: str, *headers: str, host: str = "h") -> Answer:
    return get(server, f"/comet{path}", *headers, host=host)


@pytest.mark.parametrize("request_", [get, poll, upgrade])
def test_each_reason_has_a_code_that_any_page_can_read(
    strict: Server, request_: Callable[..., Answer]
) -> None:
    answers = {
        "unknown_app": request_(strict, f"/{API_KEY}/other", ORIGIN_LINE),
        "origin_not_allowed": request_(strict, SUBSCRIBE_PATH, "Origin: https://evil.example"),
        "host_not_allowed": request_(strict, SUBSCRIBE_PATH, ORIGIN_LINE, host="other"),
    }
    assert [answer.status for answer in answers.values()] == [404, 403, 421]
    for code, answer in answers.items():
        assert answer.headers["tambur-refused"] == code
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-expose-headers"] == "Tambur-Refused"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_an_app_without_long_polling_differs_from_an_unknown_one(strict: Server) -> None:
    answer = poll(strict, f"/{API_KEY}/websockets-only")
    assert (answer.status, answer.headers["tambur-refused"]) == (404, "no_long_polling")


@pytest.mark.parametrize("request_", [get, poll])
def test_an_accepted_request_carries_no_code(strict: Server, request_: Callable[..., Answer]) -> None:
    answer = request_(strict, SUBSCRIBE_PATH, ORIGIN_LINE)
    assert answer.status == 200
    assert "tambur-refused" not in answer.headers


def test_the_declarations_of_tambur_js_name_every_result_of_a_command() -> None:
    declared = (resources.files("tambur.server") / "static" / "tambur.d.ts").read_text("utf-8")
    (union,) = re.findall(r"type Result =(.*?);", declared, re.DOTALL)
    results = {result.value for result in Result} - {"ok"}
    assert set(re.findall(r'\| "(\w+)"', union)) == results
