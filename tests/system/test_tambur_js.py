"""tambur.js in a real browser, over WebSockets and over long polling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.broker import AppKey, BrokerUnavailableError, Presence, memory
from tambur.server.broker.memory import MemoryBroker
from tests.conftest import API_KEY, APP, APP_ID, SECRET, publisher, subscriber
from tests.support.browser import page, wait_for_script

TRANSPORTS = ["WebSocket", "long polling"]


class Page:
    """A page that has loaded tambur.js from a server.

    ``connect(NAME)`` makes a connection as ``window[NAME]`` that keeps what happens to it in ``NAME.log``.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, expression: str) -> Any:
        return wait_for_script(self.driver, expression)

    def thrown(self, script: str) -> str:
        """What a script throws."""
        text: str = self.run(
            f"try {{ {script} }} catch (error) {{ return `${{error.name}}: ${{error.message}}`; }}"
            "return 'nothing';"
        )
        return text

    def connect(self, name: str = "connection", *streams: str, **options: Any) -> str:
        """Connect, and subscribe to streams; the subscriber id."""
        self.run(
            "connect(arguments[0], arguments[1], arguments[2])",
            name,
            streams,
            {"api_key": API_KEY, "app_id": APP_ID} | options,
        )
        for stream in streams:
            self.wait(f"{name}.get_stream({stream!r}).active")
        identifier: str = self.wait(f"{name}.subscriber_id")
        return identifier

    def wait_log(self, name: str, *expected: Any) -> None:
        """Wait until as much has happened as expected, and compare."""
        self.wait(f"{name}.log.length >= {len(expected)}")
        assert self.run(f"return {name}.log") == list(expected)


HTML = """<!doctype html><title>A page</title>
<script>
  const websockets = [];
  if (location.hash === "#poll") delete window.WebSocket;
  else window.WebSocket = class extends WebSocket {
    constructor(...args) { super(...args); websockets.push(this); }
  };
</script>
<script src="%s/tambur.js"></script>
<script>
  function connect(name, streams, options) {
    const connection = window[name] = new tambur.Connection(options);
    connection.log = [];
    connection.onerror = (error) => connection.log.push(["error", error.message]);
    for (const each of streams) {
      const stream = connection.get_stream(each);
      for (const event of ["onmessage", "onauth", "onpresence", "ondirect", "onenabled", "ondisabled"]) {
        stream[event] = (value) => connection.log.push([each, event, value]);
      }
    }
  }
</script>
"""


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    with page(HTML % server.url) as url:
        yield url


@pytest.fixture
def browser(driver: Chrome, address: str, transport: str) -> Iterator[Page]:
    yield from opened(driver, address, transport)


@pytest.fixture
def websocket(driver: Chrome, address: str) -> Iterator[Page]:
    yield from opened(driver, address, "WebSocket")


def opened(driver: Chrome, address: str, transport: str) -> Iterator[Page]:
    driver.get("about:blank")  # a change of the fragment alone would load nothing
    driver.get(address + ("#poll" if transport == "long polling" else ""))
    yield Page(driver)
    # What was connected goes on a page's end, and not by a poll's timeout.
    driver.execute_script("for (const value of Object.values(window)) if (value?.get_stream) value.close()")


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
    # Only now: a private message may overtake what is published to a stream.
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
        assert bot.receive(10)[1:] == ("presence", "up", "alice")
        browser.run("me.get_stream(arguments[0]).direct_msg('bot', 'Hello')", stream)
        assert bot.receive(10)[1:] == ("direct", "Hello", "alice")
        bot.send_direct(stream, "alice", "Hello yourself")
        browser.wait("me.log.length === 4")
        browser.run("me.get_stream(arguments[0]).disable_presence()", stream)
        assert bot.receive(10)[1:] == ("presence", "down", "alice")
        browser.wait("me.log.length === 5")
    log = browser.run("return me.log")
    # A poll and a command are requests of their own: which answer comes first is not promised.
    assert sorted(log, key=repr) == sorted(
        [
            [stream, "onpresence", ["bot", "up"]],
            [stream, "onenabled", "presence"],
            [stream, "onenabled", "direct"],
            [stream, "ondirect", ["bot", "Hello yourself"]],
            [stream, "ondisabled", "presence"],
        ],
        key=repr,
    )


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


def test_a_refusal_reaches_onerror_and_the_mode_can_be_tried_again(
    browser: Page, tambur: Tambur, stream: str
) -> None:
    me = browser.connect("me", stream)
    browser.run("me.get_stream(arguments[0]).enable_auth('wrong')", stream)
    browser.wait_log("me", ["error", f"the server refused set_mode on stream '{stream}': invalid_token"])
    token = tambur.generate_auth_token(stream, me)
    browser.run("me.log = []; me.get_stream(arguments[0]).enable_auth(arguments[1])", stream, token)
    browser.wait_log("me", [stream, "onenabled", "auth"])


def test_a_long_direct_message_is_sent_or_reported(
    browser: Page, tambur: Tambur, stream: str, transport: str
) -> None:
    me = browser.connect("me", stream)
    browser.run(
        "me.get_stream(arguments[0]).enable_direct('alice', arguments[1])",
        stream,
        tambur.generate_direct_token(stream, "alice", me),
    )
    browser.wait_log("me", [stream, "onenabled", "direct"])
    browser.run("me.log = []; me.get_stream(arguments[0]).direct_msg('alice', 'é'.repeat(10_000))", stream)
    if transport == "WebSocket":
        browser.wait_log("me", [stream, "ondirect", ["alice", "é" * 10_000]])
    else:
        browser.wait_log("me", ["error", f"the direct on stream '{stream}' is too long for long polling"])


MISUSE = [
    ("new tambur.Connection()", "api_key must be a string"),
    ("new tambur.Connection('key')", "app_id must be a string"),
    ("me.get_stream('')", "a stream's name is a string that is not empty"),
    ("me.get_stream(7)", "a stream's name is a string that is not empty"),
    ("me.reopen()", "the connection is open already"),
    ("me.get_stream('s').reopen()", "stream 's' is open already"),
    ("me.get_stream('closed').close()", "stream 'closed' is not active, so it cannot be closed"),
    ("me.get_stream('closed').enable_auth('t')", "stream 'closed' is not active, so auth cannot be enabled"),
    ("me.get_stream('s').enable_auth()", "auth takes a token, or the connection an ontoken that gets one"),
    (
        "me.get_stream('s').enable_auth('t'); me.get_stream('s').enable_auth('t')",
        "auth is enabled on stream 's' already",
    ),
    ("me.get_stream('s').disable_auth()", "auth is not enabled on stream 's'"),
    ("me.get_stream('s').disable_presence()", "presence is not enabled on stream 's'"),
    ("me.get_stream('s').disable_direct()", "direct is not enabled on stream 's'"),
    ("me.get_stream('s').direct_msg('bob', 'x')", "direct mode is not enabled on stream 's'"),
    ("me.get_stream('private').close()", "the stream 'private' is always there: it cannot be closed"),
    ("me.get_stream('private').reopen()", "the stream 'private' is always there: it cannot be reopened"),
    ("me.get_stream('private').enable_auth('t')", "the stream 'private' has no modes"),
]


def test_misuse_throws_and_says_what_was_wrong(websocket: Page) -> None:
    websocket.connect("me", "s", "closed")
    websocket.run("me.get_stream('closed').close()")
    thrown = {script: websocket.thrown(script) for script, _ in MISUSE}
    assert thrown == {script: f"TamburError: {message}" for script, message in MISUSE}


def test_the_interface_that_pages_of_2012_know(websocket: Page, tambur: Tambur, stream: str) -> None:
    websocket.run(
        """
        window.log = [];
        window.old = tambur.Connection(arguments[0], arguments[1], false, function () {
          log.push(["ready", this === old, old.subscriber_id !== null]);
          const stream = old.get_stream(STREAM);
          log.push(["cached", stream === old.get_stream(STREAM), stream.active, stream.name === STREAM]);
          stream.ready = function () {
            log.push(["stream ready", this === stream, stream.active, stream.enabled_modes]);
            old.close();
          };
        }, function () { log.push(["closed", this === old]); }, 3);
        window.STREAM = arguments[2];
        log.push(["made", old instanceof tambur.Connection, old.subscriber_id]);
        """,
        API_KEY,
        APP_ID,
        stream,
    )
    websocket.wait("log.length === 5")
    assert websocket.run("return log") == [
        ["made", True, None],
        ["ready", True, True],
        ["cached", True, False, True],
        ["stream ready", True, True, []],
        ["closed", True],
    ]


def test_a_handler_that_comes_late_is_called_at_once(websocket: Page) -> None:
    websocket.connect("me", "s")
    websocket.run(
        "me.ready = function (x) { me.log.push(['connection', this === me, x === me]) };"
        "me.get_stream('s').ready = function (x) { me.log.push(['stream', this === me.get_stream('s'), x === this]) };"
        "me.get_stream('private').ready = () => me.log.push('private')"
    )
    websocket.wait_log("me", ["connection", True, True], ["stream", True, True], "private")


def test_what_a_handler_throws_disturbs_nothing(websocket: Page, tambur: Tambur, stream: str) -> None:
    websocket.connect("me", stream)
    websocket.run("me.get_stream(arguments[0]).onmessage = (text) => { throw new Error(text) }", stream)
    tambur.publish(stream, "one")
    tambur.publish(stream, "two")
    websocket.wait_log("me", ["error", "one"], ["error", "two"])


def test_an_app_that_there_is_not_reaches_onerror_and_onclose(browser: Page, server: Server) -> None:
    browser.run(
        "connect('me', [], arguments[0]); me.onclose = () => me.log.push('closed')",
        {"api_key": API_KEY, "app_id": "none", "max_retries": 1},
    )
    host = server.url.removeprefix("http://")
    browser.wait_log("me", *[["error", f"cannot connect to {host}"]] * 2, "closed")


def test_a_reconnect_subscribes_again_and_asks_for_fresh_tokens(
    driver: Chrome, transport: str, stream: str
) -> None:
    config = Config(apps=(APP,), port=0)
    signer = Tambur(API_KEY, APP_ID, SECRET, "tokens-only")
    with in_background(config) as first:
        port = int(first.url.rpartition(":")[2])
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
    browser.wait("me.subscriber_id === null")
    with in_background(dataclasses.replace(config, port=port)) as second:
        after = browser.wait("me.subscriber_id")
        assert after != before
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


def test_a_page_that_is_left_is_gone_and_back_when_gone_back_to(
    browser: Page, server: Server, tambur: Tambur, stream: str
) -> None:
    before = browser.connect("me", stream)
    token = tambur.generate_presence_token(stream, "alice", before)
    with subscriber(server, stream) as bob:
        bob.enable_presence(stream, "bob", tambur.generate_presence_token)
        browser.run("me.get_stream(arguments[0]).enable_presence('alice', arguments[1])", stream, token)
        assert bob.receive(10) == (stream, "presence", "up", "alice")
        browser.driver.get(server.url + "/tambur.js")
        assert bob.receive(10) == (stream, "presence", "down", "alice")
        browser.driver.back()
        assert browser.wait(f"window.me?.get_stream({stream!r}).active && me.subscriber_id") != before


def test_a_token_that_cannot_be_had_reaches_onerror(websocket: Page, stream: str) -> None:
    websocket.connect("me", stream)
    websocket.run(
        "me.ontoken = async () => { throw new Error('403') }; me.get_stream(arguments[0]).enable_auth()",
        stream,
    )
    websocket.wait_log("me", ["error", f"no token for auth on stream '{stream}': Error: 403"])


def test_a_page_connects_where_its_script_came_from_unless_told_another_host(websocket: Page) -> None:
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


def test_handlers_are_called_once_everything_is_as_it_will_be(websocket: Page) -> None:
    """A handler may use any stream: none is left half closed."""
    config = Config(apps=(APP,), port=0)
    with in_background(config) as server:
        websocket.connect("me", "a", "b", host=server.url.removeprefix("http://"), ssl=False)
        for stream in ("a", "b"):
            token = Tambur(API_KEY, APP_ID, SECRET, "h").generate_direct_token(
                stream, "u", websocket.run("return me.subscriber_id")
            )
            websocket.run("me.get_stream(arguments[0]).enable_direct('u', arguments[1])", stream, token)
            websocket.wait(f"me.get_stream('{stream}').enabled_modes.length")
        websocket.run(
            """
            me.log = [];
            const other = { a: me.get_stream("b"), b: me.get_stream("a") };
            for (const name of ["a", "b"]) me.get_stream(name).ondisabled = () => {
              try { other[name].direct_msg("u", "x"); } catch (error) { me.log.push([name, error.message]); }
              try { other[name].close(); } catch (error) { me.log.push([name, error.message]); }
            };
            me.onerror = () => {};
            """
        )
    websocket.wait_log(
        "me",
        ["a", "direct mode is not enabled on stream 'b'"],
        ["a", "stream 'b' is not active, so it cannot be closed"],
        ["b", "direct mode is not enabled on stream 'a'"],
        ["b", "stream 'a' is not active, so it cannot be closed"],
    )
    websocket.run("me.close()")


def test_what_answers_polls_in_the_servers_place_is_a_lost_connection(driver: Chrome) -> None:
    """Such as a captive portal, or a proxy that strips scripts: it is not asked again without end."""
    greeting = (
        'tambur._answer(Number(new URL(document.currentScript.src).searchParams.get("instance")), "id:x")'
    )
    asked = []

    async def answer(request: Request) -> Response:
        asked.append(request.url.path)
        text = greeting if request.url.path.endswith(f"/{APP_ID}") else ""
        return Response(text, media_type="application/javascript")

    routes = [Route("/comet/{rest:path}", answer)]
    with in_background(Config(apps=(APP,), port=0), routes) as portal, page(HTML % portal.url) as address:
        opening = opened(driver, address, "long polling")
        browser = next(opening)
        browser.run(
            "connect('me', [], arguments[0])", {"api_key": API_KEY, "app_id": APP_ID, "max_retries": 0}
        )
        host = portal.url.removeprefix("http://")
        browser.wait_log("me", ["error", f"lost the connection to {host}"])
        assert len(asked) == 2
        assert list(opening) == []


def test_what_comes_late_for_a_closed_stream_is_not_for_the_page(
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


def test_a_refused_stream_can_be_reopened(websocket: Page) -> None:
    websocket.connect("me")
    websocket.run("me.get_stream('auth:x')")
    websocket.wait_log("me", ["error", "the server refused subscribe on stream 'auth:x': invalid_stream"])
    assert websocket.thrown("me.get_stream('auth:x').reopen()") == "nothing"
    websocket.wait("me.log.length === 2")


def test_what_is_unavailable_is_asked_for_again(driver: Chrome, stream: str) -> None:
    """As when the broker of the server cannot be reached for a while."""
    refusals = iter(range(4))

    class Unreliable(MemoryBroker):
        async def subscribe(self, app: AppKey, stream: str) -> None:
            if next(refusals, None) in (0, 1):
                raise BrokerUnavailableError("away", retry_after_s=1)
            await super().subscribe(app, stream)

        async def join(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> Presence:
            if next(refusals, None) is not None:
                raise BrokerUnavailableError("away", retry_after_s=1)
            return await super().join(app, stream, user_id, subscriber_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "MemoryBroker", Unreliable)
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
