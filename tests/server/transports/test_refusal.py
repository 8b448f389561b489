"""A refused subscriber can read why, from a page of any origin."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from importlib import resources

import pytest

from tambur.server import App, Config, Server, in_background
from tambur.server.subscriptions import Result
from tests.support.app import API_KEY, APP_ID, SECRET

from ...support.wire import SUBSCRIBE_PATH, Answer, Socket, ask, handshake

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


def test_an_operator_finds_each_refused_subscriber(strict: Server, caplog: pytest.LogCaptureFixture) -> None:
    counts = strict._hub.counts.refused
    before = counts.copy()
    with caplog.at_level(logging.INFO, "tambur.server"):
        upgrade(strict, f"/wrong-key/{APP_ID}", ORIGIN_LINE)
        upgrade(strict, SUBSCRIBE_PATH, "Origin: https://evil.example")
        upgrade(strict, SUBSCRIBE_PATH, ORIGIN_LINE, host="other")
        poll(strict, f"/{API_KEY}/other")
        poll(strict, SUBSCRIBE_PATH)
        poll(strict, f"/{API_KEY}/websockets-only")
        get(strict, f"/{API_KEY}/other")
        get(strict, SUBSCRIBE_PATH, "Origin: https://evil.example")
        get(strict, SUBSCRIBE_PATH, ORIGIN_LINE, host="other")
    lines = [record.getMessage() for record in caplog.records]
    refused = [
        re.match(r"subscriber refused status=(\d+) app=(\S+) transport=(\w+) reason=", line) for line in lines
    ]
    assert [match and match.groups() for match in refused] == [
        ("404", APP_ID, "websocket"),
        ("403", APP_ID, "websocket"),
        ("421", APP_ID, "websocket"),
        ("404", "other", "longpoll"),
        ("403", APP_ID, "longpoll"),
        ("404", "websockets-only", "longpoll"),
        ("404", "other", "balancer"),
        ("403", APP_ID, "balancer"),
        ("421", APP_ID, "http"),
    ]
    assert counts - before == {
        "unknown_app": 3,
        "origin_not_allowed": 3,
        "host_not_allowed": 2,
        "no_long_polling": 1,
    }


def test_an_operator_finds_each_refused_token(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    before = server._hub.counts.refused["invalid_token"]
    with caplog.at_level(logging.INFO, "tambur.server"), Socket(server) as one:
        assert one.command("subscribe", 1, "room") == ["ack", 1, "ok"]
        assert one.command("set_mode", 2, "auth", "room", "wrong") == ["ack", 2, "invalid_token"]
    assert [record.getMessage() for record in caplog.records] == [
        f"token refused app={APP_ID} stream=room mode=auth"
    ]
    assert server._hub.counts.refused["invalid_token"] == before + 1
