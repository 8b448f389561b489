"""Whether a page learns why it has no connection, and stops where trying again is useless."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tambur.server import App, Config, Server, in_background
from tests.support.app import API_KEY, APP, APP_ID, SECRET
from tests.support.browser import Browser, page
from tests.support.ports import free_port

from .line import IN_CHROMIUM
from .page import HTML, Page, opened

KEEP_CODES = """
    connect("me", [], arguments[0]);
    me.onerror = (error) => me.log.push([error.name, error.code, error.message]);
    me.onclose = () => me.log.push("closed");
"""


def host(server: Server) -> str:
    return server.url.removeprefix("http://")


def test_an_unknown_app_is_refused_once(browser: Page, server: Server) -> None:
    for options in ({"api_key": API_KEY, "app_id": "none"}, {"api_key": "none", "app_id": APP_ID}):
        browser.run(KEEP_CODES, options)
        reason = "there is no such app here; check the api_key and the app_id"
        message = f"{host(server)} refused the connection: {reason}"
        browser.wait_log("me", ["TamburError", "unknown_app", message], "closed")
        # It is closed, so the page can open it again, and hears the same.
        browser.run("me.log = []; me.reopen()")
        browser.wait_log("me", ["TamburError", "unknown_app", message], "closed")


def test_a_page_of_another_origin_is_refused_once(browser: Page) -> None:
    app = App(API_KEY, APP_ID, (SECRET,), allowed_origins=("https://www.example.com",))
    with in_background(Config(apps=(app,), port=0)) as strict:
        options = {"api_key": API_KEY, "app_id": APP_ID, "host": host(strict)}
        browser.run(KEEP_CODES, options)
        origin = browser.run("return location.origin")
        reason = f"pages of '{origin}' may not subscribe to this app"
        message = f"{host(strict)} refused the connection: {reason}"
        browser.wait_log("me", ["TamburError", "origin_not_allowed", message], "closed")


@IN_CHROMIUM
def test_a_server_with_other_public_hosts_refuses_once(browser: Page) -> None:
    with in_background(Config(apps=(APP,), port=0, public_hosts=("push.example",))) as strict:
        options = {"api_key": API_KEY, "app_id": APP_ID, "host": host(strict)}
        browser.run(KEEP_CODES, options)
        reason = f"'{host(strict)}' is not among this server's public_hosts"
        message = f"{host(strict)} refused the connection: {reason}"
        browser.wait_log("me", ["TamburError", "host_not_allowed", message], "closed")


@IN_CHROMIUM
def test_a_page_that_reopens_a_refused_connection_in_its_onerror(browser: Page) -> None:
    script = """
        me.onerror = (error) => {
          me.log.push([error.code, me.state]);
          if (me.log.length === 1) me.reopen();
        };
    """
    browser.run(KEEP_CODES + script, {"api_key": API_KEY, "app_id": "none"})
    # It has been reopened before it could be reported as closed.
    browser.wait_log("me", *[["unknown_app", "refused"]] * 2, "closed")


@contextlib.contextmanager
def portal(answer: Response | None) -> Iterator[str]:
    """Another program in the server's place; yields its host and port."""
    if answer is None:
        yield f"127.0.0.1:{free_port()}"
        return

    async def respond(_: Request) -> Response:
        return answer

    routes = [Route("/{rest:path}", respond)]
    with in_background(Config(apps=(App("another", "app", ("s",)),), port=0), routes) as server:
        yield host(server)


CORS = {"Access-Control-Allow-Origin": "*"}


@IN_CHROMIUM
@pytest.mark.parametrize(
    "answer",
    [
        None,
        PlainTextResponse("not found", 404),
        PlainTextResponse("not found", 404, CORS),
        PlainTextResponse("forbidden", 403, CORS),
        PlainTextResponse("", 200, CORS),
        PlainTextResponse("bad gateway", 502, CORS),
    ],
    ids=["nothing", "404", "404 with CORS", "403 with CORS", "200 with CORS", "502 with CORS"],
)
def test_no_server_or_another_one_is_tried_again(browser: Page, answer: Response | None) -> None:
    with portal(answer) as address:
        options: dict[str, Any] = {"api_key": API_KEY, "app_id": APP_ID, "host": address, "max_retries": 1}
        browser.run(KEEP_CODES, options)
        browser.wait_log(
            "me", *[["TamburError", "cannot_connect", f"cannot connect to {address}"]] * 2, "closed"
        )


def test_a_lost_connection_has_a_code_of_its_own(driver: Browser, transport: str) -> None:
    config = Config(apps=(APP,), port=free_port())  # nobody else listens there afterwards
    with in_background(config) as server, page(HTML % server.url) as address:
        opening = opened(driver, address, transport)
        browser = next(opening)
        browser.connect("me")
        browser.run("me.log = []; me.onerror = (error) => me.log.push([error.code, error.message])")
    browser.wait("me.log.length >= 2")
    assert browser.run("return me.log.slice(0, 2)") == [
        ["connection_lost", f"lost the connection to {host(server)}"],
        ["cannot_connect", f"cannot connect to {host(server)}"],
    ]
    assert list(opening) == []


@IN_CHROMIUM
def test_closing_while_the_reason_is_asked_for_ends_it(websocket: Page) -> None:
    websocket.run(
        """
        window.fetching = new Promise((resolve) => {
          const real = window.fetch;
          window.fetch = (...args) => { resolve(); return real(...args); };
        });
        connect("me", [], arguments[0]);
        fetching.then(() => { me.close(); me.log.push("by the page"); });
        """,
        {"api_key": API_KEY, "app_id": "none"},
    )
    websocket.wait("me.log.length")
    # An answer for another connection that asked later is also later than the one for this connection.
    websocket.run(
        "window.other = new tambur.Connection('none', 'none'); other.onclose = () => me.log.push('other')"
    )
    websocket.wait_log("me", "by the page", "other")


@IN_CHROMIUM
@pytest.mark.parametrize(
    ("script", "code", "result"),
    [
        ("me.get_stream('auth:x')", "invalid_stream", "invalid_stream"),
        ("me.get_stream('s').enable_auth('wrong')", "invalid_token", "invalid_token"),
        ("me.ontoken = () => { throw 1 }; me.get_stream('s').enable_auth()", "no_token", None),
        ("me.ready = () => { throw 'a string' }", "handler_failed", None),
        ("me.ready = () => me.reopen()", "invalid_state", None),
        ("me.ready = () => me.get_stream(7)", "invalid_argument", None),
        ("me._send(['nonsense'], null)", "malformed_command", "unknown command"),
        ("websockets.at(-1).onmessage({ data: '{' })", "invalid_frame", None),
    ],
)
def test_every_error_has_a_code(websocket: Page, script: str, code: str, result: str | None) -> None:
    websocket.connect("me", "s")
    websocket.run("me.onerror = (error) => me.log.push([error.name, error.code, error.result])")
    websocket.run(script)
    websocket.wait_log("me", ["TamburError", code, result])
