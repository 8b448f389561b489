"""The blocking subscriber."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from websockets.sync.server import ServerConnection, serve

from tambur import (
    CommandRefusedError,
    ConfigurationError,
    InvalidNameError,
    SubscriberClosedError,
    SubscriberTimeoutError,
    Tambur,
)
from tambur.server import App, Config, Server, in_background
from tambur.subscriber import Message, Subscriber
from tambur.subscriber.websocket import WebSocket

from ..support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber
from ..support.ports import free_port

TIMEOUT_S = 60.0


def test_messages_are_received_in_their_order(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one:
        one.enable_auth(stream, tambur.generate_auth_token)
        for i in range(3):
            tambur.publish(stream, str(i))
            tambur.publish(f"auth:{stream}", str(i))
        received = [one.receive(10) for _ in range(6)]
        assert received == [Message(stream, kind, str(i)) for i in range(3) for kind in ("public", "auth")]
        tambur.publish(f"private:{one.subscriber_id}", "x")
        assert one.receive(10) == Message("private", "private", "x")


def test_what_comes_while_a_command_is_answered_is_kept(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one:
        tambur.publish(stream, "before")
        one.subscribe(f"{stream}2")
        assert one.receive(10).text == "before"


def test_it_is_iterated_over_until_it_is_closed(server: Server, tambur: Tambur, stream: str) -> None:
    one = subscriber(server, stream)
    tambur.publish(stream, "x")
    tambur.publish(stream, "end")
    received = []
    for message in one:
        received.append(message.text)
        if message.text == "end":
            one.close()
    assert received == ["x", "end"]
    with pytest.raises(SubscriberClosedError, match="not connected"):
        one.receive()
    with pytest.raises(SubscriberClosedError, match="not connected"):
        one.subscribe("x")


def test_another_thread_may_close_it(server: Server) -> None:
    one = subscriber(server)
    timer = threading.Timer(0.1, one.close)
    timer.start()
    assert list(one) == []
    timer.join()


def test_a_timeout_is_kept(server: Server, stream: str) -> None:
    with subscriber(server, stream) as one:
        started = time.monotonic()
        with pytest.raises(SubscriberTimeoutError, match="no message within 0.1 s"):
            one.receive(timeout=0.1)
        assert time.monotonic() - started >= 0.1
        with pytest.raises(TimeoutError):
            one.receive(timeout=0)


def test_modes_can_be_turned_off(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one, subscriber(server, stream) as other:
        for each, user in ((one, "one"), (other, "other")):
            each.enable_presence(stream, user, tambur.generate_presence_token)
            each.enable_direct(stream, user, tambur.generate_direct_token)
            each.enable_auth(stream, tambur.generate_auth_token(stream, each.subscriber_id))
        assert one.receive(10) == (stream, "presence", "up", "other")
        assert other.receive(10) == (stream, "presence", "up", "one")
        other.disable_presence(stream)
        assert one.receive(10) == (stream, "presence", "down", "other")
        other.disable_auth(stream)
        other.disable_direct(stream)
        one.send_direct(stream, "other", "x")
        tambur.publish(f"auth:{stream}", "x")
        tambur.publish(stream, "fence")
        assert other.receive(10).text == "fence"
        other.unsubscribe(stream)
        tambur.publish(stream, "unheard")
        tambur.publish(f"private:{other.subscriber_id}", "fence")
        assert other.receive(10) == ("private", "private", "fence", None)


def test_a_refusal_names_the_command_and_the_result(server: Server, stream: str) -> None:
    with subscriber(server, stream) as one:
        refusals: list[tuple[Callable[[], None], str, str]] = [
            (lambda: one.subscribe(stream), "subscribe", "already_subscribed"),
            (lambda: one.enable_auth(stream, "secret-token"), "set_mode", "invalid_token"),
            (lambda: one.disable_auth(stream), "unset_mode", "mode_not_enabled"),
            (lambda: one.send_direct(stream, "u", "x"), "direct", "mode_not_enabled"),
            (lambda: one.unsubscribe("other"), "unsubscribe", "not_subscribed"),
        ]
        for refused, command, result in refusals:
            with pytest.raises(CommandRefusedError, match=result) as caught:
                refused()
            assert (caught.value.command, caught.value.result) == (command, result)
            assert "secret-token" not in str(caught.value)


def test_a_name_that_cannot_be_is_refused_here(server: Server, stream: str) -> None:
    with subscriber(server, stream) as one:
        with pytest.raises(InvalidNameError):
            one.subscribe("private")
        with pytest.raises(InvalidNameError):
            one.enable_presence(stream, "a:b", "token")
        with pytest.raises(InvalidNameError):
            one.send_direct(stream, "a:b", "x")


def test_a_url_or_the_environment_names_the_app(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://{API_KEY}:{SECRET}@{server.url.removeprefix('http://')}/app/{APP_ID}"
    monkeypatch.setenv("TAMBUR_URL", url)
    with Subscriber.from_url(url) as one, Subscriber.from_env() as other:
        assert one.url == other.url == f"ws{server.url.removeprefix('http')}/{API_KEY}/{APP_ID}"
        assert SECRET not in repr(one)


def test_what_is_malformed_is_said_so(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="api_key"):
        Subscriber("a:b", APP_ID, server.url)
    with pytest.raises(ConfigurationError, match="api_host"):
        Subscriber(API_KEY, APP_ID, "h/path")


def test_an_app_that_there_is_not_is_said_so(server: Server) -> None:
    with pytest.raises(SubscriberClosedError, match=r"answered 404: there is no such app") as caught:
        Subscriber(API_KEY, "other", server.url)
    assert caught.value.code == 404


def test_a_server_that_there_is_not_is_said_so() -> None:
    port = free_port()
    with pytest.raises(SubscriberClosedError, match="cannot connect to ws://127.0.0.1.*refused"):
        Subscriber(API_KEY, APP_ID, f"127.0.0.1:{port}")


def test_after_an_interrupt_it_goes_on(server: Server, stream: str) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def interrupted_receive(receiver: Subscriber) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        receiver.receive()

    with publisher(server) as tambur, subscriber(server, stream) as receiver:
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                interrupted_receive(receiver)
        finally:
            signal.signal(signal.SIGALRM, before)
        tambur.publish(stream, "x")
        assert receiver.receive(10).text == "x"


def strange_server(greeting: str | None, then: str | None = None) -> tuple[str, threading.Thread, object]:
    def handle(connection: ServerConnection) -> None:
        if greeting is not None:
            connection.send(greeting)
        if then is not None:
            connection.send(then)
        for _ in connection:
            pass

    made = serve(handle, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    return f"127.0.0.1:{made.socket.getsockname()[1]}", thread, made


def test_a_wrong_greeting_is_said_so() -> None:
    host, thread, made = strange_server("hello")
    try:
        with pytest.raises(SubscriberClosedError, match="no subscriber id"):
            Subscriber(API_KEY, APP_ID, host)
    finally:
        made.shutdown()  # type: ignore[attr-defined]
        thread.join()


def test_a_missing_greeting_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Patient(WebSocket):
        """It may take its time to connect, so that only the greeting is late."""

        def __init__(self, url: str, timeout_s: float) -> None:
            super().__init__(url, TIMEOUT_S)

    monkeypatch.setattr("tambur.subscriber.WebSocket", Patient)
    host, thread, made = strange_server(None)
    try:
        with pytest.raises(SubscriberClosedError, match="no subscriber id"):
            Subscriber(API_KEY, APP_ID, host, timeout=0.1)
    finally:
        made.shutdown()  # type: ignore[attr-defined]
        thread.join()


def test_a_server_that_does_not_answer_a_command_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    host, thread, made = strange_server("id:x", then="nonsense")
    try:
        with Subscriber(API_KEY, APP_ID, host, timeout=TIMEOUT_S) as one:
            with pytest.raises(SubscriberTimeoutError):
                one.receive(0.1)
            one._timeout = 0.1  # from now on: connecting may have taken longer
            with pytest.raises(SubscriberTimeoutError, match="did not answer 'subscribe' within 0.1 s"):
                one.subscribe("s")
            # The frame may come late, but it does come.
            while "nonsense" not in caplog.text:
                with pytest.raises(SubscriberTimeoutError):
                    one.receive(0.1)
    finally:
        made.shutdown()  # type: ignore[attr-defined]
        thread.join()
    assert "none of the protocol's was left out: 'nonsense'" in caplog.text


def test_a_lost_connection_is_said_so() -> None:
    with in_background(Config(apps=(APP,), port=0)) as server:
        one = subscriber(server)
    with pytest.raises(SubscriberClosedError, match="1001 the server is shutting down") as caught:
        one.receive(10)
    assert caught.value.code == 1001
    with pytest.raises(SubscriberClosedError):
        next(iter(one))
    one.close()


@contextlib.contextmanager
def published_again_and_again(tambur: Tambur, stream: str) -> Iterator[None]:
    """Publish all the time: a subscriber that was away receives a message once it is back."""
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.02):
            tambur.publish(stream, "again")

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_it_connects_again_on_request(stream: str, caplog: pytest.LogCaptureFixture) -> None:
    config = Config(apps=(APP,), port=free_port())
    with in_background(config) as server, publisher(server) as tambur:
        one = subscriber(server, stream, "other", reconnect=True)
        one.enable_auth(stream, tambur.generate_auth_token)
        one.enable_presence(stream, "one", tambur.generate_presence_token(stream, "one", one.subscriber_id))
        one.enable_direct(stream, "one", tambur.generate_direct_token)
        before = one.subscriber_id
    said = ""
    while "the connection is lost" not in said:  # it learns of that with a delay
        with pytest.raises(SubscriberTimeoutError, match="no message within 0.1 s") as caught:
            one.receive(0.1)
        said = str(caught.value)
    with in_background(config) as server, publisher(server) as tambur:
        with caplog.at_level(logging.WARNING, logger="tambur"), published_again_and_again(tambur, stream):
            assert one.receive(TIMEOUT_S).text == "again"
        assert one.subscriber_id != before
        tambur.publish(stream, "public")
        tambur.publish(f"auth:{stream}", "auth")
        assert set(iter(lambda: one.receive(TIMEOUT_S).text, "public")) <= {"again"}
        assert one.receive(TIMEOUT_S) == (stream, "auth", "auth", None)
        one.send_direct(stream, "one", "to myself")
        assert one.receive(10) == (stream, "direct", "to myself", "one")
        # Its token was for the old subscriber id.
        with pytest.raises(CommandRefusedError, match="mode_not_enabled"):
            one.disable_presence(stream)
        one.close()
    assert f"connected again, as {one.subscriber_id}" in caplog.text
    assert SECRET not in caplog.text


def test_a_mode_that_is_refused_after_a_reconnect_is_said_so_again_and_again(stream: str) -> None:
    """It is never left connected, but without what it had."""
    port = free_port()
    with in_background(Config(apps=(APP,), port=port)) as first:
        one = subscriber(first, stream, f"{stream}2", reconnect=True)
        one.enable_auth(stream, publisher(first).generate_auth_token)
    changed = Config(apps=(App(API_KEY, APP_ID, ("changed",)),), port=port)
    with one, in_background(changed):
        for _ in range(2):
            with pytest.raises(CommandRefusedError, match="invalid_token"):
                one.receive(10)


def test_no_token_gets_into_a_log(
    server: Server, tambur: Tambur, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), subscriber(server, stream) as one:
        token = tambur.generate_auth_token(stream, one.subscriber_id)
        one.enable_auth(stream, token)
    assert token not in caplog.text


def test_it_gives_up_where_the_app_is_gone(stream: str) -> None:
    port = free_port()
    with in_background(Config(apps=(APP,), port=port)) as server:
        one = subscriber(server, stream, reconnect=True)
    with in_background(Config(apps=(App("k", "a", ("s",)),), port=port)):
        with pytest.raises(SubscriberClosedError, match="answered 404"):
            one.receive(20)
    one.close()


def test_closing_ends_the_attempts_to_connect(stream: str) -> None:
    with in_background(Config(apps=(APP,), port=0)) as server:
        one = subscriber(server, stream, reconnect=True)
    timer = threading.Timer(0.2, one.close)
    timer.start()
    assert list(one) == []
    timer.join()


def test_without_websockets_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['websockets'] = None\nimport tambur.subscriber"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "subscribing needs websockets" in done.stderr
    assert "pip install 'tambur[subscriber]'" in done.stderr
