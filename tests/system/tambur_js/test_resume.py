"""A lost connection continues: nothing is missing, and the page notices little."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest
from websockets.sync.server import ServerConnection

from tambur.server import Config, in_background
from tambur.server.config import KeptStreams
from tests.support.app import APP, subscriber
from tests.support.browser import Browser, page
from tests.support.extended import Client
from tests.support.strange_server import GREETING, strange_server

from .line import IN_CHROMIUM, LOST, RESUMED, STREAM, Line, joined
from .page import HTML, opened


@pytest.fixture
def line(driver: Browser, transport: str) -> Iterator[Line]:
    with joined(driver, transport) as made:
        yield made


def test_a_page_misses_nothing_and_hears_nothing_twice(line: Line) -> None:
    with subscriber(line.server, STREAM) as bob, subscriber(line.server, STREAM) as carol:
        for user in (bob, carol):
            user.enable_presence(
                STREAM, "bob" if user is bob else "carol", line.tambur.generate_presence_token
            )
        bob.enable_direct(STREAM, "bob", line.tambur.generate_direct_token)
        for mode in ("auth", "presence", "direct"):
            line.enable(mode)
        line.tambur.publish(STREAM, "before")
        line.page.wait("me.log.at(-1)[2] === 'before'")
        assert line.log()[-1] == [STREAM, "onmessage", "before"]
        line.cut()
        assert line.page.run(
            "const { active, enabled_modes } = me.get_stream('room');"
            "return [active, enabled_modes, me.subscriber_id]"
        ) == [False, ["auth", "presence", "direct"], line.id]
        line.tambur.publish(STREAM, "public")
        line.tambur.publish(f"auth:{STREAM}", "secret")
        bob.send_direct(STREAM, "alice", "direct")
        line.tambur.publish(f"private:{line.id}", "private")
        carol.close()
        with subscriber(line.server, STREAM) as dave:
            dave.enable_presence(STREAM, "dave", line.tambur.generate_presence_token)
            line.mend()
            line.wait_until_resumed()
            line.tambur.publish(STREAM, "after")
            line.page.wait("me.log.at(-1)[2] === 'after'")
            log = line.log()
    assert line.page.run("return me.subscriber_id") == line.id
    assert log == [
        LOST,
        ["private", "onmessage", "private"],
        [STREAM, "onmessage", "public"],
        [STREAM, "onauth", "secret"],
        [STREAM, "ondirect", ["bob", "direct"]],
        [STREAM, "onpresence", ["dave", "up"]],
        [STREAM, "onpresence", ["carol", "down"]],
        RESUMED,
        [STREAM, "onmessage", "after"],
    ]


@IN_CHROMIUM
def test_a_page_that_hears_of_missed_messages_keeps_its_modes(line: Line) -> None:
    line.page.run(
        "me.get_stream('room').onmissed = function (it) { me.log.push(['missed', it === this, it.active]) }"
    )
    for mode in ("auth", "presence"):
        line.enable(mode)
    line.log()
    line.cut()
    line.forget()
    line.mend()
    line.tambur.publish(f"auth:{STREAM}", "after")
    line.page.wait("me.log.at(-1)[2] === 'after'")
    assert line.log() == [LOST, ["missed", True, True], RESUMED, [STREAM, "onauth", "after"]]


@IN_CHROMIUM
@pytest.mark.parametrize("hears", [True, False])
def test_private_messages_that_were_missed_concern_only_their_stream(line: Line, *, hears: bool) -> None:
    if hears:
        line.page.run("me.get_stream('private').onmissed = ({ name }) => me.log.push([name, 'missed'])")
    line.cut()
    for number in range(4):
        line.tambur.publish(f"private:{line.id}", f"lost {number}")
    line.tambur.publish(STREAM, "kept")
    line.mend()
    line.wait_until_resumed()
    line.tambur.publish(f"private:{line.id}", "after")
    line.page.wait("me.log.at(-1)[2] === 'after'")
    assert line.log() == [
        LOST,
        ["private", "missed" if hears else "ready"],
        [STREAM, "onmessage", "kept"],
        RESUMED,
        ["private", "onmessage", "after"],
    ]


@IN_CHROMIUM
def test_a_listener_hears_of_a_resume_after_the_handler(line: Line) -> None:
    line.page.run("me.addEventListener('resume', ({ detail }) => me.log.push(['heard', detail === me]))")
    line.cut()
    line.mend()
    line.page.wait("me.log.at(-1)[0] === 'heard'")
    assert line.log() == [LOST, RESUMED, ["heard", True]]


@IN_CHROMIUM
def test_a_page_that_only_listens_for_missed_messages_hears_of_them(line: Line) -> None:
    line.page.run(
        "me.get_stream('room').addEventListener('missed', ({ detail }) => me.log.push(detail.name))"
    )
    line.cut()
    line.forget()
    line.mend()
    line.page.wait("me.log.length >= 3")
    assert line.log() == [LOST, STREAM, RESUMED]


@pytest.mark.parametrize("asks", [False, True], ids=["in ready", "with ontoken"])
def test_a_page_of_2012_begins_anew_where_messages_were_missed(line: Line, asks: bool) -> None:
    """Its `ready` enables the modes: the tokens are still good."""
    tokens = {mode: line.token(mode) for mode in ("auth", "presence")}
    if asks:
        line.page.run(
            "me.ontoken = (mode) => { me.log.push(['asked', mode]); return arguments[0][mode].at(-1); };"
            "me.get_stream('room').enable_auth(); me.get_stream('room').enable_presence('alice')",
            tokens,
        )
    else:
        line.page.run(
            """
            const [tokens] = arguments;
            me.get_stream("room").ready = function () {
              me.log.push(["room", "ready"]);
              this.enable_auth(...tokens.auth);
              this.enable_presence(...tokens.presence);
            };
            """,
            tokens,
        )
    with subscriber(line.server, STREAM) as bob:
        line.page.wait("me.get_stream('room').enabled_modes.length === 2")
        bob.enable_presence(STREAM, "bob", line.tambur.generate_presence_token)
        line.page.wait("me.log.at(-1)[1] === 'onpresence'")
        line.log()
        line.cut()
        line.forget()
        line.mend()
        line.page.wait("me.get_stream('room').enabled_modes.length === 2")
        log = line.log()
    assert log == [
        LOST,
        *([STREAM, "ondisabled", mode] for mode in tokens),
        [STREAM, "ready"],
        *(["asked", mode] for mode in tokens if asks),
        RESUMED,
        [STREAM, "onenabled", "auth"],
        [STREAM, "onpresence", ["bob", "up"]],
        [STREAM, "onenabled", "presence"],
    ]


def test_a_session_that_ended_begins_anew(line: Line) -> None:
    """Another connection has continued it, and has been continued itself."""
    line.enable("auth")
    line.log()
    key = line.page.run("return sessions.at(-1)")
    line.cut()
    with Client(line.server, session=key) as other, Client(line.server, session=other.hello["session"]):
        line.mend()
    assert line.page.run("return me.subscriber_id") != line.id
    assert line.log() == [
        LOST, [STREAM, "ondisabled", "auth"], ["private", "ready"], "ready", [STREAM, "ready"],
    ]  # fmt: skip


@IN_CHROMIUM
def test_a_page_stays_away_while_another_connection_has_its_session(line: Line) -> None:
    line.enable("auth")
    line.page.run("me.onclose = () => me.log.push('closed')")
    line.log()
    with Client(line.server, session=line.page.run("return sessions.at(-1)")) as other:
        assert other.hello["resumed"] is True
        line.page.wait("me.log.at(-1) === 'closed'")
        assert line.page.run("return [me.state, me.subscriber_id]") == ["refused", None]
        assert line.log() == [[STREAM, "ondisabled", "auth"], ["error", "session_taken"], "closed"]
        line.page.run("me.reopen()")
        line.page.wait("me.get_stream('room').active")
        assert line.page.run("return me.subscriber_id") != line.id
    assert line.log() == [["private", "ready"], "ready", [STREAM, "ready"]]


@IN_CHROMIUM
def test_a_page_that_the_application_disconnected_stays_away(line: Line) -> None:
    line.enable("presence")
    line.page.run("me.onclose = () => me.log.push(['closed', me.state, me.subscriber_id])")
    line.log()
    assert line.tambur.disconnect(user_id="alice") == 1
    line.page.wait("me.log.at(-1)?.[0] === 'closed'")
    assert line.log() == [
        [STREAM, "ondisabled", "presence"], ["error", "disconnected"], ["closed", "refused", None],
    ]  # fmt: skip
    assert line.page.run("return websockets.filter(({ readyState }) => readyState <= 1).length") == 0


@IN_CHROMIUM
def test_a_page_may_act_while_the_connection_is_lost(line: Line) -> None:
    for mode in ("auth", "presence", "direct"):
        line.enable(mode)
    line.log()
    line.cut()
    line.page.run(
        """
        const room = me.get_stream("room");
        room.disable_presence();
        room.ready = () => me.log.push("a new ready");
        me.ready = () => me.log.push("another new ready");
        me.get_stream("late").ready = () => me.log.push("late");
        """
    )
    message = "TamburError: stream 'room' is not active, so it takes no direct message"
    assert line.page.thrown("me.get_stream('room').direct_msg('bob', 'x')") == message
    line.mend()
    line.wait_until_resumed()
    assert line.page.run("return me.get_stream('room').enabled_modes") == ["auth", "direct"]
    assert line.log() == [
        LOST, [STREAM, "ondisabled", "presence"], "another new ready", "a new ready", "late", RESUMED,
    ]  # fmt: skip


@IN_CHROMIUM
def test_a_mode_that_is_on_its_way_when_the_connection_is_lost_is_enabled_once(line: Line) -> None:
    line.page.run(
        "me.ontoken = (...what) => new Promise((resolve) => { me.log.push(what); window.answer = resolve });"
        "me.get_stream('room').enable_auth()"
    )
    line.page.wait("Boolean(window.answer)")
    line.cut()
    (token,) = line.token("auth")
    line.page.run("answer(arguments[0])", token)
    line.mend()
    line.page.wait("me.log.at(-1)[1] === 'onenabled'")
    assert line.log() == [["auth", STREAM, line.id], LOST, RESUMED, [STREAM, "onenabled", "auth"]]


@IN_CHROMIUM
def test_a_void_token_disables_the_modes_and_the_stream_begins_anew(line: Line) -> None:
    line.enable("auth")
    line.log()
    line.cut()
    line.page.run('change = (frame) => frame.replace(/(?<="auth":")./, \'x\')')
    line.mend()
    line.wait_until_resumed()
    assert line.page.run("return me.get_stream('room').enabled_modes") == []
    assert line.log() == [
        LOST, [STREAM, "ondisabled", "auth"], ["error", "invalid_token"], [STREAM, "ready"], RESUMED,
    ]  # fmt: skip


@IN_CHROMIUM
def test_a_stream_can_start_with_history_and_goes_on_after_it(driver: Browser, transport: str) -> None:
    app = dataclasses.replace(APP, history=(KeptStreams("kept", messages=10),))
    with joined(driver, transport, app) as line:
        for text in "123":
            line.tambur.publish("kept", text)
        line.page.run(
            """
            const kept = me.get_stream("kept", { last: 2 });
            kept.ready = () => me.log.push("ready");
            kept.onmessage = (text) => me.log.push(text);
            """
        )
        line.page.wait("me.get_stream('kept').active")
        assert line.log() == ["2", "3", "ready"]
        line.cut()
        line.tambur.publish("kept", "4")
        line.mend()
        line.wait_until_resumed()
        assert line.log() == [LOST, "4", RESUMED]
        line.page.run("me.get_stream('kept').close(); me.get_stream('kept').reopen()")
        line.page.wait("me.get_stream('kept').active")
        assert line.log() == ["3", "4", "ready"]


@IN_CHROMIUM
def test_without_resume_a_reconnect_is_as_in_2012(driver: Browser, transport: str) -> None:
    with joined(driver, transport, resume=False) as line:
        line.enable("auth")
        line.log()
        line.cut()
        assert line.page.run("return [me.subscriber_id, me.get_stream('room').enabled_modes]") == [None, []]
        line.tambur.publish(STREAM, "missed")
        line.mend()
        line.page.wait("me.log.at(-1)[1] === 'ready'")
        assert line.log() == [
            [STREAM, "ondisabled", "auth"], LOST, ["private", "ready"], "ready", [STREAM, "ready"],
        ]  # fmt: skip
        assert line.page.run("return sessions") == []
        message = "TamburError: last takes a connection without resume: false"
        assert line.page.thrown("me.get_stream('late', { last: 1 })") == message


@IN_CHROMIUM
def test_a_server_without_extended_connections_serves_the_page(driver: Browser) -> None:
    heard = []

    def behave(connection: ServerConnection) -> None:
        connection.send(GREETING)
        for frame in connection:
            heard.append(frame)
            word, handle, *_ = json.loads(frame)
            connection.send(json.dumps(["ack", 0, "no"] if word == "hello" else ["ack", handle, "ok"]))

    with in_background(Config(apps=(APP,), port=0)) as server, page(HTML % server.url) as address:
        opening = opened(driver, address, "WebSocket")
        browser = next(opening)
        with strange_server(behave) as host:
            browser.connect("me", STREAM, host=host)
            assert browser.run("return me.subscriber_id") == GREETING.removeprefix("id:")
            browser.run("me.get_stream('late', { last: 5 }).ready = () => me.log.push('ready')")
            browser.wait_log("me", "ready")
            browser.run("me.close()")
        assert heard == ['["hello",1,{}]', f'["subscribe",2,"{STREAM}"]', '["subscribe",3,"late"]']
        assert list(opening) == []


@IN_CHROMIUM
def test_a_server_without_its_broker_is_asked_for_a_session_again(driver: Browser) -> None:
    answers = iter(["unavailable", "unavailable"])
    session = {
        "id": "an-id",
        "session": "key",
        "resumed": False,
        "position": "p",
        "complete": True,
        "heartbeat_s": 15,
    }
    heard = []

    def behave(connection: ServerConnection) -> None:
        connection.send(GREETING)
        for frame in connection:
            word, handle, *_ = json.loads(frame)
            heard.append(word)
            refusal = next(answers, None) if word == "hello" else None
            connection.send(
                json.dumps(["ack", handle, refusal] if refusal else ["ack", handle, "ok", session])
            )

    with in_background(Config(apps=(APP,), port=0)) as server, page(HTML % server.url) as address:
        opening = opened(driver, address, "WebSocket")
        browser = next(opening)
        with strange_server(behave) as host:
            assert browser.connect("me", STREAM, host=host) == "an-id"
            browser.wait_log("me", *[["error", "the server refused hello: unavailable"]] * 2)
            browser.run("me.close()")
        assert heard == ["hello", "hello", "hello", "subscribe"]
        assert list(opening) == []
