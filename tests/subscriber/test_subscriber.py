"""The commands of a subscriber and the messages that it receives."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest

from tambur import (
    CommandRefusedError,
    InvalidNameError,
    SubscriberClosedError,
    SubscriberTimeoutError,
    Tambur,
)
from tambur.server import Server
from tambur.subscriber import Message, Subscriber

from ..support.app import API_KEY, APP_ID, SECRET, publisher, subscriber


def test_messages_are_received_in_order(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one:
        one.enable_auth(stream, tambur.generate_auth_token)
        for i in range(3):
            tambur.publish(stream, str(i))
            tambur.publish(f"auth:{stream}", str(i))
        received = [one.receive(60) for _ in range(6)]
        assert received == [Message(stream, kind, str(i)) for i in range(3) for kind in ("public", "auth")]
        tambur.publish(f"private:{one.subscriber_id}", "x")
        assert one.receive(60) == Message("private", "private", "x")


def test_a_message_that_arrives_before_an_ack_is_kept(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one:
        tambur.publish(stream, "before")
        one.subscribe(f"{stream}2")
        assert one.receive(60).text == "before"


def test_iteration_ends_when_the_subscriber_is_closed(server: Server, tambur: Tambur, stream: str) -> None:
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


def test_another_thread_may_close_the_subscriber(server: Server) -> None:
    one = subscriber(server)
    timer = threading.Timer(0.1, one.close)
    timer.start()
    assert list(one) == []
    timer.join()


def test_receive_raises_after_its_timeout(server: Server, stream: str) -> None:
    with subscriber(server, stream) as one:
        started = time.monotonic()
        with pytest.raises(SubscriberTimeoutError, match="no message within 0.1 s"):
            one.receive(timeout=0.1)
        assert time.monotonic() - started >= 0.1
        with pytest.raises(TimeoutError):
            one.receive(timeout=0)


def test_modes_can_be_disabled(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one, subscriber(server, stream) as other:
        for each, user in ((one, "one"), (other, "other")):
            each.enable_presence(stream, user, tambur.generate_presence_token)
            each.enable_direct(stream, user, tambur.generate_direct_token)
            each.enable_auth(stream, tambur.generate_auth_token(stream, each.subscriber_id))
        assert one.receive(60) == (stream, "presence", "up", "other")
        assert other.receive(60) == (stream, "presence", "up", "one")
        other.disable_presence(stream)
        assert one.receive(60) == (stream, "presence", "down", "other")
        other.disable_auth(stream)
        other.disable_direct(stream)
        one.send_direct(stream, "other", "x")
        tambur.publish(f"auth:{stream}", "x")
        tambur.publish(stream, "fence")
        assert other.receive(60).text == "fence"
        other.unsubscribe(stream)
        tambur.publish(stream, "unheard")
        tambur.publish(f"private:{other.subscriber_id}", "fence")
        assert other.receive(60) == ("private", "private", "fence", None)


def test_a_refusal_names_the_command_and_the_result(server: Server, stream: str) -> None:
    with subscriber(server, stream) as one:
        refusals: list[tuple[Callable[[], object], str, str]] = [
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


def test_an_invalid_name_is_refused_before_it_is_sent(server: Server, stream: str) -> None:
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


def test_a_subscriber_works_after_a_keyboard_interrupt(server: Server, stream: str) -> None:
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
        assert receiver.receive(60).text == "x"


def test_no_token_appears_in_a_log(
    server: Server, tambur: Tambur, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), subscriber(server, stream) as one:
        token = tambur.generate_auth_token(stream, one.subscriber_id)
        one.enable_auth(stream, token)
    assert token not in caplog.text
