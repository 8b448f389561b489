"""A subscriber that reconnects."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time

import pytest

from tambur import CommandRefusedError, MessagesMissedError, SubscriberClosedError, SubscriberTimeoutError
from tambur.server import App, Config, in_background
from tambur.subscriber import Subscriber, session

from ..support.app import API_KEY, APP, SECRET, publisher, subscriber
from ..support.ports import free_port

TIMEOUT_S = 60


def wait_until_reconnected(one: Subscriber, before: str) -> MessagesMissedError:
    """Receive nothing until the connection is another one than ``before``; the old session has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        assert time.monotonic() < deadline
        try:
            pytest.fail(f"received {one.receive(1)}")
        except SubscriberTimeoutError:
            pass  # it may have ended in the middle of reconnecting
        except MessagesMissedError as missed:
            assert one.subscriber_id != before
            return missed


def test_a_reconnect_restores_subscriptions_and_modes(stream: str, caplog: pytest.LogCaptureFixture) -> None:
    config = Config(apps=(APP,), port=free_port())
    with in_background(config) as server, publisher(server) as tambur:
        one = subscriber(server, stream, "other", reconnect=True)
        one.enable_auth(stream, tambur.generate_auth_token)
        one.enable_presence(stream, "one", tambur.generate_presence_token(stream, "one", one.subscriber_id))
        one.enable_direct(stream, "one", tambur.generate_direct_token)
        before = one.subscriber_id
    said = ""
    while "the connection is lost" not in said:  # the subscriber may notice later
        with pytest.raises(SubscriberTimeoutError, match="no message within 0.1 s") as caught:
            one.receive(0.1)
        said = str(caught.value)
    with in_background(config) as server, publisher(server) as tambur:
        with caplog.at_level(logging.WARNING, logger="tambur"):
            missed = wait_until_reconnected(one, before)
        assert set(missed.streams) == {stream, "other"}
        tambur.publish(stream, "public")
        tambur.publish(f"auth:{stream}", "auth")
        assert [one.receive(60).text for _ in range(2)] == ["public", "auth"]
        one.send_direct(stream, "one", "to myself")
        assert one.receive(60) == (stream, "direct", "to myself", "one")
        # The token that was given as text is for the old subscriber ID.
        with pytest.raises(CommandRefusedError, match="mode_not_enabled"):
            one.disable_presence(stream)
        one.close()
    assert f"reconnected as {one.subscriber_id}" in caplog.text
    assert SECRET not in caplog.text


def test_a_mode_that_is_refused_after_a_reconnect_raises_each_time(stream: str) -> None:
    """The subscriber never stays connected with less than it had."""
    port = free_port()
    with in_background(Config(apps=(APP,), port=port)) as first:
        one = subscriber(first, stream, f"{stream}2", reconnect=True)
        one.enable_auth(stream, publisher(first).generate_auth_token)
    changed = Config(apps=(App(API_KEY, APP.app_id, ("changed",)),), port=port)
    with one, in_background(changed):
        for _ in range(2):
            with pytest.raises(CommandRefusedError, match="invalid_token"):
                one.receive(TIMEOUT_S)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (Config(apps=(App("k", "a", ("s",)),)), 404),
        (Config(apps=(APP,), public_hosts=("tambur.example.com",)), 421),
    ],
)
def test_a_subscriber_gives_up_after_a_refusal_that_lasts(stream: str, changed: Config, status: int) -> None:
    port = free_port()
    with in_background(Config(apps=(APP,), port=port)) as server:
        one = subscriber(server, stream, reconnect=True)
    with in_background(dataclasses.replace(changed, port=port)):
        with pytest.raises(SubscriberClosedError, match=f"answered {status}"):
            one.receive(TIMEOUT_S)
    one.close()


def test_calls_with_short_timeouts_reconnect(stream: str) -> None:
    config = Config(apps=(APP,), port=free_port())
    with in_background(config) as server:
        one = subscriber(server, stream, reconnect=True)
        before = one.subscriber_id
    with one, in_background(config):
        deadline = time.monotonic() + TIMEOUT_S
        while one.subscriber_id == before:
            assert time.monotonic() < deadline
            with contextlib.suppress(SubscriberTimeoutError, MessagesMissedError):
                one.receive(0.001)


def test_a_reason_that_stays_is_logged_once(
    stream: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MIN_RECONNECT_WAIT_S", 0.001)
    with in_background(Config(apps=(APP,), port=free_port())) as server:
        one = subscriber(server, stream, reconnect=True)
    deadline = time.monotonic() + TIMEOUT_S
    with one, caplog.at_level(logging.WARNING, logger="tambur"):
        while one._session._attempts < 4:
            assert time.monotonic() < deadline
            with pytest.raises(SubscriberTimeoutError):
                one.receive(0.02)
    assert caplog.text.count("trying again: cannot connect") == 1


def test_an_error_of_a_token_function_is_raised_and_the_next_call_tries_again(stream: str) -> None:
    config = Config(apps=(APP,), port=free_port())
    fails = False

    def token(name: str, subscriber_id: str) -> str:
        if fails:
            raise RuntimeError("no database")
        return publisher(server).generate_auth_token(name, subscriber_id)

    with in_background(config) as server:
        one = subscriber(server, stream, reconnect=True)
        one.enable_auth(stream, token)
    with one, in_background(config) as server, publisher(server) as tambur:
        fails = True
        with pytest.raises(RuntimeError, match="no database"):
            one.receive(TIMEOUT_S)
        fails = False
        with pytest.raises(MessagesMissedError):
            one.receive(TIMEOUT_S)
        tambur.publish(f"auth:{stream}", "x")
        assert one.receive(TIMEOUT_S).text == "x"


def test_closing_ends_the_attempts_to_reconnect(stream: str) -> None:
    with in_background(Config(apps=(APP,), port=0)) as server:
        one = subscriber(server, stream, reconnect=True)
    timer = threading.Timer(0.2, one.close)
    timer.start()
    assert list(one) == []
    timer.join()


def test_a_subscriber_that_the_application_disconnected_stays_away(stream: str) -> None:
    with in_background(Config(apps=(APP,), port=0)) as server, publisher(server) as tambur:
        with subscriber(server, stream, reconnect=True) as one:
            before = one.subscriber_id
            assert tambur.disconnect(subscriber_id=before) == 1
            for _ in range(2):
                with pytest.raises(SubscriberClosedError, match="disconnected by the application") as caught:
                    one.receive(TIMEOUT_S)
                assert caught.value.code == 4003
            assert one.subscriber_id == before
