"""The interface of tambur.js, that of 2012 included."""

from __future__ import annotations

from tambur import Tambur
from tambur.server import Config, in_background
from tests.support.app import API_KEY, APP, APP_ID, SECRET
from tests.support.ports import free_port

from .line import IN_CHROMIUM
from .page import Page

pytestmark = IN_CHROMIUM

MISUSE = [
    ("new tambur.Connection()", "api_key must be a string"),
    ("new tambur.Connection('key')", "app_id must be a string"),
    (
        "new tambur.Connection({ api_key: 'k', app_id: 'a', host: 'https://h' })",
        "host is 'host' or 'host:port', not 'https://h'",
    ),
    ("me.get_stream('')", "a stream's name is a string that is not empty"),
    ("me.get_stream(7)", "a stream's name is a string that is not empty"),
    ("me.get_stream('t', { last: -1 })", "last is an integer from 0 to 1000"),
    ("me.get_stream('t', { last: '5' })", "last is an integer from 0 to 1000"),
    ("me.get_stream('t', { last: 1001 })", "last is an integer from 0 to 1000"),
    ("me.reopen()", "the connection is open already"),
    ("me.get_stream('s').reopen()", "stream 's' is open already"),
    ("me.get_stream('closed').close()", "stream 'closed' is not active, so it cannot be closed"),
    ("me.get_stream('closed').enable_auth('t')", "stream 'closed' is not active, so auth cannot be enabled"),
    ("me.get_stream('s').enable_auth()", "auth takes a token, or the connection an ontoken that gets one"),
    ("me.get_stream('s').enable_presence(undefined, 't')", "presence takes a user ID that is not empty"),
    ("me.get_stream('s').enable_direct('', 't')", "direct takes a user ID that is not empty"),
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


def test_misuse_throws_an_error_that_names_the_mistake(websocket: Page) -> None:
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


def test_an_error_in_a_handler_disturbs_nothing(websocket: Page, tambur: Tambur, stream: str) -> None:
    websocket.connect("me", stream)
    websocket.run("me.get_stream(arguments[0]).onmessage = (text) => { throw new Error(text) }", stream)
    tambur.publish(stream, "one")
    tambur.publish(stream, "two")
    websocket.wait_log("me", ["error", "one"], ["error", "two"])


def test_handlers_are_called_once_everything_is_as_it_will_be(websocket: Page) -> None:
    """A handler may use any stream: none is left half closed."""
    config = Config(apps=(APP,), port=free_port())  # nobody else listens there afterwards
    with in_background(config) as server:
        host = server.url.removeprefix("http://")
        websocket.connect("me", "a", "b", host=host, ssl=False, resume=False)
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
