"""How a page connects, and connects again."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tambur import Tambur
from tambur.server import App, Config, Limits, in_background
from tests.support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber
from tests.support.browser import TIMEOUT_S, Browser, page
from tests.support.firefox import Firefox
from tests.support.ports import free_port

from .line import IN_CHROMIUM
from .page import HTML, VISITS, Page, opened


def test_a_closed_connection_can_be_reopened(browser: Page, tambur: Tambur, stream: str) -> None:
    first = browser.connect("me", stream)
    browser.run("me.onclose = function () { this.log.push('closed') }; me.close(); me.close()")
    assert browser.run("return [me.subscriber_id, me.get_stream(arguments[0]).active]", stream) == [
        None,
        False,
    ]
    browser.run("me.reopen()")
    browser.wait(f"me.get_stream({stream!r}).active")
    assert browser.run("return me.subscriber_id") not in (None, first)
    tambur.publish(stream, "again")
    browser.wait_log("me", "closed", [stream, "onmessage", "again"])


def test_a_reconnect_subscribes_again_and_asks_for_fresh_tokens(
    driver: Browser, transport: str, stream: str
) -> None:
    config = Config(apps=(APP,), port=free_port())
    signer = Tambur(API_KEY, APP_ID, SECRET, "tokens-only")
    with in_background(config) as first:
        with page(HTML % first.url) as address:
            opening = opened(driver, address, transport)
            browser = next(opening)
        before = browser.connect("me", stream)
        browser.run(
            """
            window.asked = [];
            me.ontoken = (...what) => new Promise((resolve) => asked.push([what, resolve]));
            me.get_stream(arguments[0]).enable_auth();
            me.get_stream(arguments[0]).enable_presence("alice", arguments[1]);
            """,
            stream,
            signer.generate_presence_token(stream, "alice", before),
        )
        answer_asked(browser, [["auth", stream, before]], signer.generate_auth_token(stream, before))
        browser.wait("me.log.length === 2")
    browser.wait(f"!me.get_stream({stream!r}).active")
    with in_background(config) as second:
        after = browser.wait(f"me.subscriber_id !== {before!r} && me.subscriber_id")
        browser.wait(f"asked.length === 2 && me.get_stream({stream!r}).active")
        assert browser.run("return asked.map(([what]) => what)") == [
            ["presence", stream, after],
            ["auth", stream, after],
        ]
        browser.run(
            "asked[1][1](arguments[0]); asked[0][1](arguments[1])",
            signer.generate_auth_token(stream, after),
            signer.generate_presence_token(stream, "alice", after),
        )
        browser.wait(f"me.get_stream({stream!r}).enabled_modes.length === 2")
        with publisher(second) as tambur:
            tambur.publish(f"auth:{stream}", "welcome back")
        browser.wait("me.log.at(-1)[1] === 'onauth'")
        log = [entry for entry in browser.run("return me.log") if entry[0] == stream]
        assert log == [
            *([stream, "onenabled", mode] for mode in ("presence", "auth")),
            *([stream, "ondisabled", mode] for mode in ("presence", "auth")),
            *([stream, "onenabled", mode] for mode in ("auth", "presence")),
            [stream, "onauth", "welcome back"],
        ]
        assert list(opening) == []


def answer_asked(browser: Page, expected: list[Any], token: str) -> None:
    browser.wait("asked.length === 1")
    assert browser.run("return asked.map(([what]) => what)") == expected
    browser.run("asked.pop()[1](arguments[0])", token)


def test_a_user_who_leaves_the_page_is_gone_and_is_back_with_the_page(
    driver: Browser, transport: str, stream: str
) -> None:
    config = Config(apps=(APP,), port=0, limits=Limits(presence_linger_s=0.2))
    with (
        in_background(config) as server,
        page(HTML % server.url) as address,
        publisher(server) as tambur,
        subscriber(server, stream) as bob,
    ):
        opening = opened(driver, address, transport)
        browser = next(opening)
        bob.enable_presence(stream, "bob", tambur.generate_presence_token)
        # A browser may load a page anew that the user goes back to. Firefox does so if the page had a socket or request open.
        for _ in range(1 if isinstance(driver, Firefox) else VISITS):
            before = browser.connect("me", stream)
            token = tambur.generate_presence_token(stream, "alice", before)
            browser.run("me.get_stream(arguments[0]).enable_presence('alice', arguments[1])", stream, token)
            assert bob.receive(TIMEOUT_S) == (stream, "presence", "up", "alice")
            browser.leave(server.url + "/tambur.js")
            assert bob.receive(TIMEOUT_S) == (stream, "presence", "down", "alice")
            if browser.go_back():
                assert browser.wait(f"me.get_stream({stream!r}).active && me.subscriber_id") == before
                assert bob.receive(TIMEOUT_S) == (stream, "presence", "up", "alice")
                break
        else:
            assert isinstance(driver, Firefox)
        assert list(opening) == []


@IN_CHROMIUM
def test_a_page_connects_to_the_host_of_its_script_unless_given_another(websocket: Page) -> None:
    config = Config(apps=(App("key", "elsewhere", ("s",)),), port=0, limits=Limits())
    with in_background(config) as elsewhere:
        host = elsewhere.url.removeprefix("http://")
        websocket.run(
            "connect('me', ['s'], arguments[0])",
            {"api_key": "key", "app_id": "elsewhere", "host": host, "ssl": False},
        )
        websocket.wait("me.get_stream('s').active")
        assert websocket.run("return websockets.map((socket) => socket.url)") == [
            f"ws://{host}/key/elsewhere"
        ]
        websocket.run("me.close()")


GREETED = '{"poll": "secret", "n": 1, "frames": ["id:x"]}'


@IN_CHROMIUM
@pytest.mark.parametrize("text", ["<!doctype html>", "", "{}", "null"])
def test_an_answer_to_a_poll_that_is_not_the_servers_is_a_lost_connection(driver: Browser, text: str) -> None:
    """Such as a captive portal: it is not asked again without end."""
    answers = iter([GREETED, text])
    asked = []

    async def answer(request: Request) -> Response:
        if "close" in (sent := await request.json()):
            return Response()
        asked.append(sent)
        return Response(next(answers), headers={"Access-Control-Allow-Origin": "*"})

    routes = [Route("/comet/{rest:path}", answer, methods=["POST"])]
    with in_background(Config(apps=(APP,), port=0), routes) as portal, page(HTML % portal.url) as address:
        opening = opened(driver, address, "long polling")
        browser = next(opening)
        options = {"api_key": API_KEY, "app_id": APP_ID, "max_retries": 0, "resume": False}
        browser.run("connect('me', [], arguments[0])", options)
        host = portal.url.removeprefix("http://")
        browser.wait_log("me", ["error", f"lost the connection to {host}"])
        assert asked == [{"send": []}, {"poll": "secret", "n": 1, "send": []}]
        assert list(opening) == []
