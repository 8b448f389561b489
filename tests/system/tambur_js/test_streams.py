"""Subscribing, and enabling modes."""

from __future__ import annotations

import pytest

from tambur import Tambur
from tambur.server import Config, in_background
from tambur.server.broker import AppKey, BrokerUnavailableError, PresentUsers, memory
from tambur.server.broker.memory import MemoryBroker, MemoryPresence
from tests.support.app import API_KEY, APP, APP_ID, SECRET
from tests.support.browser import Browser, page

from .line import IN_CHROMIUM
from .page import HTML, Page, opened


def test_a_closed_stream_gets_nothing_until_it_is_reopened(
    browser: Page, tambur: Tambur, stream: str
) -> None:
    browser.connect("me", stream, "other")
    browser.run("me.get_stream(arguments[0]).close(); me.get_stream('other').ready = null", stream)
    assert browser.run("return me.get_stream(arguments[0]).active", stream) is False
    # Commands are answered in their order: once this one is, the stream is closed on the server, too.
    browser.run("me.get_stream('fence').ready = () => me.log.push('fence')")
    browser.wait_log("me", "fence")
    tambur.publish(stream, "unheard")
    browser.run("me.get_stream(arguments[0]).reopen()", stream)
    browser.wait(f"me.get_stream({stream!r}).active")
    tambur.publish(stream, "heard")
    browser.wait_log("me", "fence", [stream, "onmessage", "heard"])


@IN_CHROMIUM
def test_a_refused_stream_can_be_reopened(websocket: Page) -> None:
    websocket.connect("me")
    websocket.run("me.get_stream('auth:x')")
    websocket.wait_log("me", ["error", "the server refused subscribe on stream 'auth:x': invalid_stream"])
    assert websocket.thrown("me.get_stream('auth:x').reopen()") == "nothing"
    websocket.wait("me.log.length === 2")


@IN_CHROMIUM
def test_a_refusal_reaches_onerror_and_the_mode_can_be_tried_again(
    browser: Page, tambur: Tambur, stream: str
) -> None:
    me = browser.connect("me", stream)
    browser.run("me.get_stream(arguments[0]).enable_auth('wrong')", stream)
    browser.wait_log("me", ["error", f"the server refused set_mode on stream '{stream}': invalid_token"])
    token = tambur.generate_auth_token(stream, me)
    browser.run("me.log = []; me.get_stream(arguments[0]).enable_auth(arguments[1])", stream, token)
    browser.wait_log("me", [stream, "onenabled", "auth"])


@IN_CHROMIUM
def test_a_token_that_cannot_be_had_reaches_onerror(websocket: Page, stream: str) -> None:
    websocket.connect("me", stream)
    websocket.run(
        "me.ontoken = async () => { throw new Error('403') }; me.get_stream(arguments[0]).enable_auth()",
        stream,
    )
    websocket.wait_log("me", ["error", f"no token for auth on stream '{stream}': Error: 403"])


@IN_CHROMIUM
@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("<!DOCTYPE html><title>Log in</title>", "a string of 36 characters"),
        (f'"{40 * "a"}"', "a string of 42 characters"),
        (None, "null"),
        ({"token": 40 * "a"}, "object"),
    ],
    ids=["a log-in page", "JSON", "nothing", "an object"],
)
def test_an_answer_that_is_not_a_token_is_not_sent(
    websocket: Page, tambur: Tambur, stream: str, answer: object, found: str
) -> None:
    """A view that redirects to a log-in page answers 200 in the end."""
    me = websocket.connect("me", stream)
    websocket.run(
        "me.ontoken = async () => arguments[1]; me.get_stream(arguments[0]).enable_auth()", stream, answer
    )
    said = f"TamburError: a token has 40 hexadecimal digits, but ontoken returned {found}"
    websocket.wait_log("me", ["error", f"no token for auth on stream '{stream}': {said}"])
    token = tambur.generate_auth_token(stream, me)
    websocket.run("me.log = []; me.get_stream(arguments[0]).enable_auth(arguments[1])", stream, token)
    websocket.wait_log("me", [stream, "onenabled", "auth"])


@IN_CHROMIUM
def test_a_mode_that_is_unavailable_is_requested_again(driver: Browser, stream: str) -> None:
    """As when the broker of the server cannot be reached for a while."""
    refusals = iter(range(4))

    class UnreliableBroker(MemoryBroker):
        async def subscribe(self, app: AppKey, stream: str) -> None:
            if next(refusals, None) in (0, 1):
                raise BrokerUnavailableError("away", retry_after_s=1)
            await super().subscribe(app, stream)

    class UnreliablePresence(MemoryPresence):
        async def join(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> PresentUsers:
            if next(refusals, None) is not None:
                raise BrokerUnavailableError("away", retry_after_s=1)
            return await super().join(app, stream, user_id, subscriber_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "MemoryBroker", UnreliableBroker)
        patch.setattr(memory, "MemoryPresence", UnreliablePresence)
        with in_background(Config(apps=(APP,), port=0)) as server, page(HTML % server.url) as address:
            opening = opened(driver, address, "WebSocket")
            browser = next(opening)
            me = browser.connect("me", stream)
            token = Tambur(API_KEY, APP_ID, SECRET, "h").generate_presence_token(stream, "alice", me)
            browser.run("me.get_stream(arguments[0]).enable_presence('alice', arguments[1])", stream, token)
            browser.wait_log(
                "me",
                *[["error", f"the server refused subscribe on stream '{stream}': unavailable"]] * 2,
                ["error", f"the server refused set_mode on stream '{stream}': unavailable"],
                [stream, "onenabled", "presence"],
            )
            assert list(opening) == []
