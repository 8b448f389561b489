"""Sessions over real WebSockets: section 7 of the protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.config import KeptStreams

from ..support.app import API_KEY, APP, APP_ID, SECRET
from ..support.extended import Client
from ..support.wire import Socket

OTHER_APP = App(API_KEY, "other", (SECRET,))
POSITION = re.compile(r"[A-Za-z0-9._-]{1,64}")
KEPT_APP = App(
    API_KEY, "kept", (SECRET,), history=(KeptStreams("room-*", messages=3), KeptStreams("none", 0))
)


@pytest.fixture(scope="module", params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    limits = Limits(heartbeat_s=0.3, session_ttl_s=2.0, max_replay_bytes=1000)
    broker = "memory://"
    if request.param == "redis":
        broker = request.getfixturevalue("redis_server").url(database=3)
    config = Config(apps=(APP, OTHER_APP, KEPT_APP), port=0, limits=limits, broker=broker)
    with in_background(config) as running:
        yield running


@pytest.fixture
def tambur(server: Server) -> Iterator[Tambur]:
    with Tambur(API_KEY, APP_ID, SECRET, server.url) as made:
        yield made


def test_a_hello_begins_a_session(server: Server) -> None:
    with Client(server) as client:
        assert client.hello["id"] == client.subscriber_id
        assert client.hello["resumed"] is False
        assert client.hello["complete"] is True
        assert client.hello["heartbeat_s"] == 0.3
        assert POSITION.fullmatch(client.hello["position"])
        assert set(client.hello) == {"id", "session", "resumed", "position", "complete", "heartbeat_s"}
        assert client.ask("hello", {}) == "invalid_hello"


def test_a_hello_after_another_command_is_refused(server: Server, stream: str) -> None:
    with Socket(server) as plain:
        assert plain.command("subscribe", 1, stream) == ["ack", 1, "ok"]
        assert plain.command("hello", 2, {}) == ["ack", 2, "invalid_hello"]


@pytest.mark.parametrize("options", [None, 1, "x", [], {"session": 1}, {"since": []}])
def test_a_hello_with_wrong_options_is_refused_and_may_be_sent_again(server: Server, options: object) -> None:
    with Socket(server) as client:
        assert client.command("hello", 1, options) == ["ack", 1, "invalid_options"]
        assert client.command("hello", 2, {"unknown": 1})[2] == "ok"


def test_a_session_keeps_its_id_tokens_and_private_messages(
    server: Server, tambur: Tambur, stream: str
) -> None:
    with Client(server) as lost:
        auth = tambur.generate_auth_token(stream, lost.subscriber_id)
        tambur.publish(f"private:{lost.subscriber_id}", "received")
        received = lost.json()
        hello = lost.hello
    tambur.publish(f"private:{lost.subscriber_id}", "missed")
    with Client(server, session=hello["session"], since=received[4]) as back:
        assert back.hello["resumed"] is True
        assert back.hello["id"] == lost.subscriber_id != back.subscriber_id
        assert back.hello["complete"] is True
        assert [message[3] for message in back.replayed] == ["missed"]
        assert back.hello["session"] != hello["session"]
        assert back.ask("subscribe", stream, {"auth": auth})["complete"] is True
        tambur.publish(f"private:{lost.subscriber_id}", "new")
        assert back.json()[3] == "new"


def test_a_resumed_session_replays_direct_messages(server: Server, tambur: Tambur, stream: str) -> None:
    with Client(server) as lost, Client(server) as sender:
        alice = tambur.generate_direct_token(stream, "alice", lost.subscriber_id)
        since = lost.ask("subscribe", stream, {"direct": ["alice", alice]})["position"]
        bob = tambur.generate_direct_token(stream, "bob", sender.subscriber_id)
        sender.ask("subscribe", stream, {"direct": ["bob", bob]})
        lost.connection.close()
        tambur.publish(stream, "1")
        assert sender.json()[3] == "1"
        assert sender.ask("direct", stream, "alice", "2") == "ok"
        assert sender.ask("direct", stream, "carol", "not for alice") == "ok"
        tambur.publish(stream, "3")
    with Client(server, session=lost.hello["session"]) as back:
        answer = back.ask("subscribe", stream, {"since": since, "direct": ["alice", alice]})
        assert answer["complete"] is True
        assert back.bodies == ["1", ["bob", "2"], "3"]


def test_resuming_closes_the_connection_that_has_the_session(server: Server) -> None:
    with Client(server) as old, Client(server, session=old.hello["session"]) as new:
        assert new.hello["resumed"] is True
        assert old.close_code() == 4009
        # The same key again: the ack may have been lost.
        with Client(server, session=old.hello["session"]) as newest:
            assert newest.hello["resumed"] is True
            assert new.close_code() == 4009


def test_using_a_key_ends_the_older_ones(server: Server) -> None:
    with Client(server) as first, Client(server, session=first.hello["session"]) as second:
        with Client(server, session=second.hello["session"]) as third:
            assert third.hello["resumed"] is True
            with Client(server, session=first.hello["session"], since="x") as late:
                assert late.hello["resumed"] is False
                assert late.hello["id"] == late.subscriber_id
                assert late.hello["complete"] is False
            assert third.ask("subscribe", "s")["complete"] is True


@pytest.mark.parametrize("key", ["", "x", "A" * 70, "\ud800" * 70])
def test_an_unknown_key_begins_a_new_session(server: Server, key: str) -> None:
    with Client(server, session=key) as client:
        assert client.hello["resumed"] is False
        assert client.hello["id"] == client.subscriber_id
        assert client.hello["complete"] is True


def test_a_key_of_another_app_or_process_is_not_resumed(server: Server) -> None:
    with Client(server, app_id="other") as other, Client(server, session=other.hello["session"]) as client:
        assert client.hello["resumed"] is False
    with in_background(Config(apps=(APP,), port=0)) as another:
        with Client(another) as elsewhere, Client(server, session=elsewhere.hello["session"]) as client:
            assert client.hello["resumed"] is False


def test_heartbeats_and_fresh_keys_come_by_themselves(server: Server) -> None:
    with Client(server) as client:
        heard: list[Any] = []
        while ["heartbeat"] not in heard or not any(frame[0] == "session" for frame in heard):
            heard.append(Socket.json(client))
        fresh = next(frame[1] for frame in heard if frame[0] == "session")
    with Client(server, session=fresh) as back:
        assert back.hello["resumed"] is True


def test_a_key_expires(server: Server) -> None:
    with Client(server) as client:
        old = client.hello["session"]
        keys: list[Any] = []
        while len(keys) < 3:  # each is sent before half of the time of the one before has passed
            keys += [frame[1] for frame in [Socket.json(client)] if frame[0] == "session"]
        with Client(server, session=old) as late:
            assert late.hello["resumed"] is False


def test_no_key_is_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with Client(server) as client, Client(server, session=client.hello["session"]) as back:
        assert client.hello["session"] not in caplog.text
        assert back.hello["session"] not in caplog.text
        assert json.dumps(client.hello["session"]) not in caplog.text


def test_long_polling_refuses_a_hello(server: Server) -> None:
    with requests.Session() as session:
        url = f"{server.url}/comet/{API_KEY}/{APP_ID}"
        first = session.get(url, params={"instance": "1", "callback": "f"}, timeout=10)
        subscriber_id = re.findall('"id:([^"]*)"', first.text)[0]
        command = {"instance": "1", "callback": "f", "data": '["hello",1,{}]'}
        answer = session.get(f"{url}/{subscriber_id}", params=command, timeout=10)
        assert '["ack",1,"invalid_hello"]' in answer.text
