"""The messages that a page receives and sends."""

from __future__ import annotations

from tambur import Tambur
from tambur.server import Server
from tests.support.app import subscriber
from tests.support.browser import TIMEOUT_S

from .line import IN_CHROMIUM
from .page import Page


def test_every_kind_of_message_arrives_and_in_order(browser: Page, tambur: Tambur, stream: str) -> None:
    me = browser.connect("me", stream, "private")
    browser.run(
        "me.get_stream(arguments[0]).enable_auth(arguments[1])",
        stream,
        tambur.generate_auth_token(stream, me),
    )
    browser.wait(f"me.get_stream({stream!r}).enabled_modes.length")
    texts = ["plain", "", "<b>&amp;\u2028'\"\\</b>", "Grüße 🎉", "a,b\n[]"]
    for text in texts:
        tambur.publish(stream, text)
    tambur.publish(f"auth:{stream}", "secretly")
    expected = [
        [stream, "onenabled", "auth"],
        *([stream, "onmessage", text] for text in texts),
        [stream, "onauth", "secretly"],
    ]
    browser.wait_log("me", *expected)
    # Only now: a private message may overtake the messages of a stream.
    tambur.publish(f"private:{me}", "to you")
    browser.wait_log("me", *expected, ["private", "onmessage", "to you"])


def test_presence_and_direct_messages_between_pages_and_bots(
    browser: Page, server: Server, tambur: Tambur, stream: str
) -> None:
    enable = """
        const stream = me.get_stream(arguments[0]);
        stream.enable_presence("alice", arguments[1]);
        stream.enable_direct("alice", arguments[2]);
    """
    with subscriber(server, stream) as bot:
        bot.enable_presence(stream, "bot", tambur.generate_presence_token)
        bot.enable_direct(stream, "bot", tambur.generate_direct_token)
        me = browser.connect("me", stream)
        tokens = [
            make(stream, "alice", me)
            for make in (tambur.generate_presence_token, tambur.generate_direct_token)
        ]
        browser.run(enable, stream, *tokens)
        browser.wait(f"me.get_stream({stream!r}).enabled_modes.join() === 'presence,direct'")
        assert bot.receive(TIMEOUT_S)[1:] == ("presence", "up", "alice")
        browser.run("me.get_stream(arguments[0]).direct_msg('bot', 'Hello')", stream)
        assert bot.receive(TIMEOUT_S)[1:] == ("direct", "Hello", "alice")
        bot.send_direct(stream, "alice", "Hello yourself")
        browser.wait("me.log.at(-1)[1] === 'ondirect'")
        browser.run("me.get_stream(arguments[0]).disable_presence()", stream)
        assert bot.receive(TIMEOUT_S)[1:] == ("presence", "down", "alice")
        browser.wait_log(
            "me",
            [stream, "onpresence", ["bot", "up"]],
            [stream, "onenabled", "presence"],
            [stream, "onenabled", "direct"],
            [stream, "ondirect", ["bot", "Hello yourself"]],
            [stream, "ondisabled", "presence"],
        )


def test_a_long_direct_message_is_sent(browser: Page, tambur: Tambur, stream: str) -> None:
    me = browser.connect("me", stream)
    browser.run(
        "me.get_stream(arguments[0]).enable_direct('alice', arguments[1])",
        stream,
        tambur.generate_direct_token(stream, "alice", me),
    )
    browser.wait_log("me", [stream, "onenabled", "direct"])
    browser.run("me.log = []; me.get_stream(arguments[0]).direct_msg('alice', 'é'.repeat(10_000))", stream)
    browser.wait_log("me", [stream, "ondirect", ["alice", "é" * 10_000]])


@IN_CHROMIUM
def test_many_streams_are_subscribed_at_once(browser: Page, tambur: Tambur, stream: str) -> None:
    browser.connect("me")
    browser.run("for (let i = 0; i < 250; i++) me.get_stream(`${arguments[0]}-${i}`)", stream)
    browser.wait(f"me.get_stream('{stream}-249').active")
    assert (
        browser.run(
            "let count = 0;"
            "for (let i = 0; i < 250; i++) count += me.get_stream(`${arguments[0]}-${i}`).active;"
            "return count",
            stream,
        )
        == 250
    )


@IN_CHROMIUM
def test_late_messages_of_a_closed_stream_do_not_reach_the_page(
    websocket: Page, tambur: Tambur, stream: str
) -> None:
    websocket.connect("me", stream)
    websocket.run(
        """
        const stream = me.get_stream(arguments[0]);
        stream.onmessage = (text) => { me.log.push(text); stream.close(); };
        """,
        stream,
    )
    tambur.publish_many([(stream, str(i)) for i in range(20)])
    websocket.run("me.get_stream('fence').ready = () => me.log.push('fence')")
    websocket.wait_log("me", "0", "fence")
