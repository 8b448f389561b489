"""A subscriber that continues after a lost connection: sessions, positions and replay."""

from __future__ import annotations

import logging
import pickle
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from tambur import (
    CommandRefusedError,
    ConfigurationError,
    MessagesMissedError,
    SubscriberClosedError,
    Tambur,
)
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.config import KeptStreams
from tambur.subscriber import Message, Subscriber, Subscription

from ..support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber
from ..support.extended import Client
from ..support.ports import free_port
from ..support.strange_server import GREETING, strange_server
from ..support.tcp_proxy import TcpProxy

TIMEOUT_S = 60


@pytest.fixture
def proxy(server: Server) -> Iterator[TcpProxy]:
    with TcpProxy(int(server.url.rpartition(":")[2])) as made:
        yield made


def resuming(proxy: TcpProxy, *streams: str) -> Subscriber:
    one = Subscriber(API_KEY, APP_ID, f"127.0.0.1:{proxy.port}", timeout=TIMEOUT_S, reconnect=True)
    for stream in streams:
        one.subscribe(stream)
    return one


def texts(one: Subscriber, count: int) -> list[str]:
    return [one.receive(TIMEOUT_S).text for _ in range(count)]


def test_a_lost_connection_loses_nothing(proxy: TcpProxy, tambur: Tambur, stream: str) -> None:
    other = f"{stream}2"
    with resuming(proxy, stream, other) as one:
        before = one.subscriber_id
        one.enable_auth(stream, tambur.generate_auth_token(stream, before))
        one.enable_direct(stream, "me", tambur.generate_direct_token(stream, "me", before))
        for i in range(5):
            assert proxy.drop() == 1
            tambur.publish(stream, f"public {i}")
            tambur.publish(f"auth:{stream}", f"auth {i}")
            tambur.publish(stream, f"again {i}")
            assert texts(one, 3) == [f"public {i}", f"auth {i}", f"again {i}"]
            tambur.publish(f"private:{before}", f"private {i}")
            assert texts(one, 1) == [f"private {i}"]
        assert one.subscriber_id == before
        proxy.drop()
        with subscriber_of(tambur, stream, "you") as you:
            you.send_direct(stream, "me", "whisper")
        tambur.publish(f"private:{before}", "secret")
        tambur.publish(other, "elsewhere")
        assert {one.receive(TIMEOUT_S) for _ in range(3)} == {
            Message(stream, "direct", "whisper", "you"),
            Message("private", "private", "secret"),
            Message(other, "public", "elsewhere"),
        }
        one.unsubscribe(other)
        proxy.drop()
        tambur.publish(other, "not subscribed")
        tambur.publish(stream, "the end")
        assert texts(one, 1) == ["the end"]


def subscriber_of(tambur: Tambur, stream: str, user_id: str) -> Subscriber:
    made = Subscriber(API_KEY, APP_ID, tambur.api_host, timeout=TIMEOUT_S)
    made.subscribe(stream)
    made.enable_direct(stream, user_id, tambur.generate_direct_token)
    return made


def test_connections_cut_in_the_middle_of_messages_lose_nothing_and_double_nothing(
    proxy: TcpProxy, tambur: Tambur, stream: str
) -> None:
    with resuming(proxy, stream) as one:
        received: list[str] = []
        for i in range(200):
            tambur.publish(stream, f"{i} {'x' * 500}")
            if i % 20 == 7:
                proxy.truncate()
            if i % 20 == 13:
                received += texts(one, 1)
                proxy.drop()
        received += texts(one, 200 - len(received))
        assert [text.split()[0] for text in received] == [str(i) for i in range(200)]


def test_after_a_reconnect_only_changes_of_presence_arrive(
    stream: str,
) -> None:
    # Users linger for longer than any test takes.
    config = Config(apps=(APP,), port=0, limits=Limits(presence_linger_s=1000))
    with (
        in_background(config) as server,
        TcpProxy(int(server.url.rpartition(":")[2])) as proxy,
        publisher(server) as tambur,
        resuming(proxy, stream) as one,
        subscriber(server, stream) as alice,
    ):
        alice.enable_presence(stream, "alice", tambur.generate_presence_token)
        bob = subscriber(server, stream)
        bob.enable_presence(stream, "bob", tambur.generate_presence_token)
        assert alice.receive(TIMEOUT_S).user_id == "bob"
        one.enable_presence(stream, "me", tambur.generate_presence_token)
        assert {one.receive(TIMEOUT_S).user_id for _ in range(2)} == {"alice", "bob"}
        assert alice.receive(TIMEOUT_S) == (stream, "presence", "up", "me")
        proxy.refuse(True)
        proxy.drop()
        bob.close()
        assert alice.receive(TIMEOUT_S) == (stream, "presence", "down", "bob")
        with subscriber(server, stream) as carol:
            carol.enable_presence(stream, "carol", tambur.generate_presence_token)
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "up", "carol")
            proxy.refuse(False)
            assert one.receive(TIMEOUT_S) == (stream, "presence", "down", "bob")
            assert one.receive(TIMEOUT_S) == (stream, "presence", "up", "carol")
            tambur.publish(stream, "x")
            assert one.receive(TIMEOUT_S).text == "x"
            # The others see no change, since the user lingers.
            assert alice.receive(TIMEOUT_S).text == "x"
            one.close()
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "down", "me")


def test_missed_messages_are_reported_once_and_the_next_call_continues(stream: str) -> None:
    config = Config(apps=(APP,), port=free_port())
    names = [stream, "other"]
    with in_background(config) as first, publisher(first) as tambur:
        one = subscriber(first, *names, reconnect=True)
        tambur.publish(stream, "before")
        before = one.subscriber_id
    with one, in_background(config) as second, publisher(second) as tambur:
        assert one.receive(TIMEOUT_S).text == "before"
        with pytest.raises(MessagesMissedError, match="messages may be missing") as missed:
            one.receive(TIMEOUT_S)
        assert sorted(missed.value.streams) == sorted(names)
        assert one.subscriber_id != before
        tambur.publish(stream, "after")
        assert one.receive(TIMEOUT_S).text == "after"


def test_a_session_that_has_ended_misses_the_messages_of_modes_that_cannot_be_replayed(
    proxy: TcpProxy, tambur: Tambur, stream: str
) -> None:
    other, complete = f"{stream}2", f"{stream}3"
    with resuming(proxy, stream, other, complete) as one:
        before = one.subscriber_id
        one.enable_auth(complete, tambur.generate_auth_token)
        one.enable_direct(stream, "me", tambur.generate_direct_token)
        one.enable_auth(other, tambur.generate_auth_token(other, before))  # void with another ID
        assert one._session._connection is not None
        one._session._connection.session_key = "unknown"
        proxy.drop()
        for name in (stream, other, f"auth:{other}", f"auth:{complete}"):
            tambur.publish(name, "meanwhile")
        with pytest.raises(MessagesMissedError) as missed:
            one.receive(TIMEOUT_S)
        assert missed.value.streams == (stream, other)
        assert one.subscriber_id != before
        assert {one.receive(TIMEOUT_S) for _ in range(3)} == {
            Message(stream, "public", "meanwhile"),
            Message(other, "public", "meanwhile"),
            Message(complete, "auth", "meanwhile"),
        }
        one.send_direct(stream, "me", "works again")
        assert texts(one, 1) == ["works again"]
        with pytest.raises(CommandRefusedError, match="mode_not_enabled"):
            one.disable_auth(other)


def test_a_lost_connection_that_was_not_extended_may_have_missed_messages(
    proxy: TcpProxy, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CommandRefusedError("as before an upgrade", command="hello", result="malformed")

    with monkeypatch.context() as patched:
        patched.setattr("tambur.subscriber.connection.Connection.hello", refuse)
        one = resuming(proxy, stream)
    with one:
        proxy.drop()
        with pytest.raises(MessagesMissedError) as missed:
            one.receive(TIMEOUT_S)
        assert missed.value.streams == (stream,)
        assert one.subscribe(f"{stream}2").position is not None


def test_another_process_continues_from_a_position(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, reconnect=True) as first:
        assert first.subscribe(stream).replayed == 0
        for i in range(3):
            tambur.publish(stream, str(i))
        position = next(first.receive(TIMEOUT_S) for _ in range(3)).position
    assert isinstance(position, str)
    with subscriber(server) as second:
        answer = second.subscribe(stream, since=position)
        assert (answer.complete, answer.replayed) == (True, 2)
        assert texts(second, 2) == ["1", "2"]
    with subscriber(server) as third:
        assert third.subscribe(stream, since=answer.position) == Subscription(answer.position, True, 0)
    with subscriber(server) as fourth:
        strange = fourth.subscribe(stream, since="no-position")
        assert (strange.complete, strange.replayed) == (False, 0)


def test_the_newest_messages_are_replayed(stream: str) -> None:
    app = App(API_KEY, APP_ID, (SECRET,), history=(KeptStreams("*"),))
    with in_background(Config(apps=(app,), port=0)) as server, publisher(server) as tambur:
        for i in range(5):
            tambur.publish(stream, str(i))
            tambur.publish(f"auth:{stream}", f"auth {i}")
        with subscriber(server) as one:
            assert one.subscribe(stream, last=2).replayed == 2
            assert texts(one, 2) == ["3", "4"]
        with subscriber(server) as one:
            assert one.subscribe(stream, last=2, auth=tambur.generate_auth_token).replayed == 2
            assert texts(one, 2) == ["4", "auth 4"]
            tambur.publish(f"auth:{stream}", "live")
            assert texts(one, 1) == ["live"]
            one.disable_auth(stream)
        with subscriber(server) as one:
            with pytest.raises(CommandRefusedError, match="invalid_token"):
                one.subscribe(stream, auth="x" * 40)
            assert one.subscribe(f"{stream}2", last=2).replayed == 0


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"last": -1}, "last must be an integer from 0 to 1000, not -1"),
        ({"last": 1001}, "last must be an integer from 0 to 1000, not 1001"),
        ({"last": True}, "last must be an integer from 0 to 1000, not True"),
        ({"last": "5"}, "last must be an integer from 0 to 1000, not '5'"),
        ({"since": ""}, "since must be a position that the server gave, not ''"),
        ({"since": 5}, "since must be a position that the server gave, not 5"),
        ({"since": "x", "last": 1}, "since and last exclude each other"),
    ],
)
def test_an_invalid_option_is_named(server: Server, stream: str, options: dict[str, Any], rule: str) -> None:
    with subscriber(server) as one:
        with pytest.raises(ConfigurationError) as refused:
            one.subscribe(stream, **options)
        assert str(refused.value) == rule


def test_each_subscribe_may_ask_for_a_replay(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one:
        tambur.publish(stream, "x")
        message = one.receive(TIMEOUT_S)
        tambur.publish(stream, "y")
        assert one.receive(TIMEOUT_S).text == "y"
        one.unsubscribe(stream)
        assert one.subscribe(stream, since=message.position).replayed == 1
        assert texts(one, 1) == ["y"]


def test_an_unavailable_session_refuses_the_command(
    server: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CommandRefusedError("the broker cannot be reached", command="hello", result="unavailable")

    with subscriber(server) as one:
        with monkeypatch.context() as patched:
            patched.setattr("tambur.subscriber.connection.Connection.hello", refuse)
            with pytest.raises(CommandRefusedError, match="the broker cannot be reached"):
                one.subscribe(stream)
        assert one.subscribe(stream).position is not None


def test_a_refused_subscribe_changes_nothing(server: Server, stream: str) -> None:
    with subscriber(server, reconnect=True) as one:
        position = one.subscribe(stream).position
        with pytest.raises(CommandRefusedError, match="already_subscribed"):
            one.subscribe(stream, since=position)
        one.unsubscribe(stream)
        assert one.subscribe(stream, since=position).complete


def test_a_silent_server_is_noticed(stream: str, caplog: pytest.LogCaptureFixture) -> None:
    config = Config(apps=(APP,), port=0, limits=Limits(heartbeat_s=0.2))
    with in_background(config) as server, publisher(server) as tambur:
        with TcpProxy(int(server.url.rpartition(":")[2])) as proxy, resuming(proxy, stream) as one:
            received: list[str] = []
            receiver = threading.Thread(target=lambda: received.extend(texts(one, 1)))
            with caplog.at_level(logging.WARNING, logger="tambur"):
                proxy.delay(1000)
                receiver.start()
                deadline = time.monotonic() + TIMEOUT_S
                while "has sent nothing for 0.3 s; reconnecting" not in caplog.text:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                proxy.delay(0)
                proxy.drop()  # it may have begun to reconnect before
                tambur.publish(stream, "x")
                receiver.join(TIMEOUT_S)
            assert received == ["x"]


def test_a_program_that_does_not_receive_stays_connected() -> None:
    answered: queue.Queue[bool] = queue.Queue()

    def beat(connection: ServerConnection) -> None:
        connection.send(GREETING)
        for _ in range(1000):
            connection.send('["heartbeat"]')
        answered.put(connection.ping().wait(TIMEOUT_S))

    with strange_server(beat) as host, Subscriber(API_KEY, APP_ID, host, timeout=TIMEOUT_S):
        assert answered.get(timeout=TIMEOUT_S)


def test_a_session_that_continues_elsewhere_is_left_alone(server: Server, stream: str) -> None:
    with subscriber(server, stream, reconnect=True) as one:
        assert one._session._connection is not None
        with Client(server, session=one._session._connection.session_key) as other:
            assert other.hello["resumed"] is True
            for _ in range(2):
                with pytest.raises(SubscriberClosedError) as closed:
                    one.receive(TIMEOUT_S)
                assert closed.value.code == 4009


def test_no_session_key_is_shown(
    proxy: TcpProxy, tambur: Tambur, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), resuming(proxy, stream) as one:
        assert one._session._connection is not None
        keys = [one._session._connection.session_key]
        proxy.drop()
        tambur.publish(stream, "x")
        assert texts(one, 1) == ["x"]
        keys.append(one._session._connection.session_key)
        for key in keys:
            assert key is not None
            assert key not in caplog.text + repr(one)


def test_a_position_takes_no_part_in_comparisons() -> None:
    one, other = Message("s", "public", "x", position="p"), Message("s", "public", "x")
    assert one == other
    assert hash(one) == hash(other)
    assert tuple(one) == ("s", "public", "x", None)
    assert not one < other
    assert len(one) == 4
    assert pickle.loads(pickle.dumps(one)).position == "p"  # noqa: S301
    assert (one.position, other.position) == ("p", None)
