"""Events for listeners, beside the handlers; the state of a connection."""

from __future__ import annotations

import pytest

from tambur import Tambur
from tambur.server import App, Config, Server, in_background
from tests.support.app import API_KEY, APP, APP_ID, SECRET, subscriber
from tests.support.browser import Browser, page
from tests.support.ports import free_port

from .line import IN_CHROMIUM
from .page import HTML, Page, opened

LISTEN = """
    const stream = me.get_stream(arguments[0]);
    me.log = [];
    const both = (target, type, handler, show = (detail) => detail) => {
      target[handler] = (value) => me.log.push([handler, show(value)]);
      target.addEventListener(type, (event) => {
        me.log.push([event.type, show(event.detail), event.target === target && event instanceof CustomEvent]);
      });
    };
"""


def test_a_listener_hears_each_event_of_a_stream_after_its_handler(
    browser: Page, server: Server, tambur: Tambur, stream: str
) -> None:
    me = browser.connect("me", stream)
    browser.run(
        LISTEN
        + """
        for (const type of ["message", "auth", "presence", "direct", "enabled", "disabled"]) {
          both(stream, type, `on${type}`);
        }
        """,
        stream,
    )

    def wait_for(*events: tuple[str, object]) -> None:
        expected = [
            entry for type_, value in events for entry in ([f"on{type_}", value], [type_, value, True])
        ]
        browser.wait_log("me", *expected)
        browser.run("me.log = []")

    tokens = {
        "auth": [tambur.generate_auth_token(stream, me)],
        "presence": ["alice", tambur.generate_presence_token(stream, "alice", me)],
        "direct": ["alice", tambur.generate_direct_token(stream, "alice", me)],
    }
    for mode, arguments in tokens.items():
        browser.run(f"me.get_stream(arguments[0]).enable_{mode}(...arguments[1])", stream, arguments)
        wait_for(("enabled", mode))
    tambur.publish(stream, "Hello")
    wait_for(("message", "Hello"))
    tambur.publish(f"auth:{stream}", "Psst")
    wait_for(("auth", "Psst"))
    with subscriber(server, stream) as bob:
        bob.enable_presence(stream, "bob", tambur.generate_presence_token)
        wait_for(("presence", ["bob", "up"]))
        bob.enable_direct(stream, "bob", tambur.generate_direct_token)
        bob.send_direct(stream, "alice", "Coffee?")
        wait_for(("direct", ["bob", "Coffee?"]))
    wait_for(("presence", ["bob", "down"]))
    browser.run("me.get_stream(arguments[0]).disable_auth()", stream)
    wait_for(("disabled", "auth"))


@IN_CHROMIUM
def test_a_listener_hears_that_a_stream_is_ready_and_a_removed_one_hears_nothing(browser: Page) -> None:
    browser.connect("me")
    browser.run(
        """
        const stream = me.get_stream("s");
        const removed = () => me.log.push("removed");
        stream.addEventListener("ready", removed);
        stream.removeEventListener("ready", removed);
        stream.addEventListener("ready", (event) => me.log.push(event.detail === stream), { once: true });
        """
    )
    browser.wait_log("me", True)


def test_the_states_of_a_connection(driver: Browser, transport: str) -> None:
    config = Config(apps=(APP,), port=free_port())
    with in_background(config) as first:
        with page(HTML % first.url) as address:
            opening = opened(driver, address, transport)
            browser = next(opening)
        browser.run(
            """
            window.states = [];
            connect("me", [], arguments[0]);
            me.onerror = () => states.push(["error", me.state]);
            me.onclose = () => states.push(["close", me.state]);
            states.push(me.state);
            me.onstate = function (state) { states.push([state, this === me, this.state]) };
            me.addEventListener("state", ({ detail }) => states.push(detail));
            """,
            {"api_key": API_KEY, "app_id": APP_ID},
        )
        browser.wait("me.state === 'connected'")
        assert browser.run("return states.splice(0)") == [
            "connecting",
            ["connected", True, "connected"],
            "connected",
        ]
    browser.wait("states.some(([what, state]) => what === 'error' && state === 'waiting')")
    # It tries, and waits, again and again.
    with in_background(config):
        browser.wait("me.state === 'connected'")
        states = browser.run("return states.splice(0)")
        assert states[:3] == [["waiting", True, "waiting"], "waiting", ["error", "waiting"]]
        assert states[3:5] == [["connecting", True, "connecting"], "connecting"]
        assert states[-2:] == [["connected", True, "connected"], "connected"]
        browser.run("me.close(); me.close()")
        assert browser.run("return states.splice(0)") == [
            ["closed", True, "closed"], "closed", ["close", "closed"],
        ]  # fmt: skip
        browser.run("me.reopen()")
        browser.wait("me.state === 'connected'")
        assert browser.run("return states") == [
            ["connecting", True, "connecting"], "connecting", ["connected", True, "connected"], "connected",
        ]  # fmt: skip
        assert list(opening) == []


@IN_CHROMIUM
def test_a_refused_connection_is_in_a_state_of_its_own(browser: Page) -> None:
    browser.run(
        """
        connect("me", [], arguments[0]);
        me.onstate = (state) => me.log.push(state);
        me.onerror = (error) => me.log.push([error.code, me.state]);
        me.onclose = () => { me.log.push(me.state); me.close(); };
        """,
        {"api_key": API_KEY, "app_id": "none"},
    )
    browser.wait_log("me", "refused", ["unknown_app", "refused"], "refused")


@IN_CHROMIUM
def test_too_many_retries_close_a_connection(browser: Page) -> None:
    browser.run(
        """
        connect("me", [], arguments[0]);
        me.onstate = (state) => me.log.push(state);
        me.onerror = (error) => me.log.push([error.code, me.state]);
        me.onclose = () => me.log.push("closed by now");
        """,
        {"api_key": API_KEY, "app_id": APP_ID, "host": "127.0.0.1:1", "max_retries": 1},
    )
    browser.wait_log(
        "me",
        "waiting", ["cannot_connect", "waiting"], "connecting",
        "closed", ["cannot_connect", "closed"], "closed by now",
    )  # fmt: skip


@IN_CHROMIUM
@pytest.mark.parametrize(
    "handler",
    ["onstate = (state) => state === 'connected' && me.close()", "ready = () => me.close()"],
    ids=["onstate", "ready"],
)
def test_a_page_may_close_the_connection_in_a_handler(browser: Page, handler: str) -> None:
    browser.run(
        f"""
        connect("me", [], arguments[0]);
        me.get_stream("s").ready = () => me.log.push("subscribed");
        me.{handler};
        me.onclose = () => me.log.push([me.state, me.subscriber_id]);
        """,
        {"api_key": API_KEY, "app_id": APP_ID},
    )
    browser.wait_log("me", ["closed", None])


@IN_CHROMIUM
def test_closing_and_reopening_in_a_handler_leaves_one_connection(websocket: Page) -> None:
    with in_background(Config(apps=(App(API_KEY, APP_ID, (SECRET,)),), port=0)) as other:
        websocket.connect("me", host=other.url.removeprefix("http://"))
        websocket.run(
            """
            me.close();
            let is_first = true;
            me.onstate = (state) => {
              if (state !== "connecting" || !is_first) return;
              is_first = false;
              me.close();
              me.reopen();
            };
            me.reopen();
            """
        )
        websocket.wait("me.state === 'connected'")
        websocket.connect("other", host=other.url.removeprefix("http://"))
        # A second socket of `me` would have been opened before that of `other`.
        assert websocket.run("return websockets.filter(({ readyState }) => readyState <= 1).length") == 2
        websocket.run("me.close(); other.close()")


@IN_CHROMIUM
def test_a_listener_that_throws_disturbs_nothing(websocket: Page, tambur: Tambur, stream: str) -> None:
    """The browser reports it, as it does for every EventTarget."""
    websocket.connect("me", stream)
    websocket.run(
        """
        window.stream = me.get_stream(arguments[0]);
        stream.onmessage = null;
        // The browser reports no errors in a test's injected script, only those in a script of the page.
        const script = document.createElement("script");
        script.text = `
          window.addEventListener("error", (event) => { me.log.push(event.error.message); event.preventDefault(); });
          stream.addEventListener("message", (event) => { throw new Error(event.detail) });
          stream.addEventListener("message", (event) => me.log.push(["next", event.detail]));
        `;
        document.head.append(script);
        """,
        stream,
    )
    tambur.publish(stream, "one")
    websocket.wait_log("me", "one", ["next", "one"])


@IN_CHROMIUM
@pytest.mark.parametrize(
    ("listen", "shown"),
    [
        ("", 1),
        ("me.addEventListener('error', (event) => me.log.push(event.detail.code))", 1),
        ("me.addEventListener('error', (event) => event.preventDefault())", 0),
        ("me.onerror = () => {}", 0),
    ],
)
def test_an_error_is_in_the_console_unless_the_page_handles_it(
    websocket: Page, listen: str, shown: int
) -> None:
    websocket.connect("me", "s")
    websocket.run(
        f"""
        me.onerror = null;
        window.shown = [];
        console.error = (error) => shown.push(error.code);
        {listen};
        me.get_stream("s").enable_auth("wrong");
        me.get_stream("fence").ready = () => me.log.push("fence");
        """
    )
    websocket.wait("me.log.includes('fence')")
    assert websocket.run("return shown") == ["invalid_token"] * shown
