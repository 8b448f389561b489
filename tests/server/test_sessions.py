"""Sessions over real WebSockets: section 7 of the protocol."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator

import pytest
import requests

from tambur import Tambur
from tambur.protocol.session_keys import SessionKeys
from tambur.server import Config, Limits, Server, in_background

from ..support.app import API_KEY, APP, APP_ID, SECRET
from ..support.clock import clocked
from ..support.extended import OTHER_APP, Client
from ..support.wire import Socket

POSITION = re.compile(r"[A-Za-z0-9._-]{1,64}")
LIMITS = Limits(heartbeat_s=20.0, session_ttl_s=1000.0, session_max_s=5000.0)


@pytest.fixture(scope="module", params=["memory", "redis"])
def nodes(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """Two nodes of a cluster, or one node twice: a session continues on either."""
    config = Config(apps=(APP, OTHER_APP), port=0, limits=LIMITS)
    if request.param == "memory":
        with in_background(config) as one:
            yield one, one
        return
    config = dataclasses.replace(config, broker=request.getfixturevalue("redis_server").url(database=3))
    with in_background(config) as one, in_background(config) as two:
        yield one, two


@pytest.fixture
def server(nodes: tuple[Server, Server]) -> Server:
    return nodes[0]


def test_a_hello_begins_a_session(server: Server) -> None:
    with Client(server) as client:
        assert client.hello["id"] == client.subscriber_id
        assert client.hello["resumed"] is False
        assert client.hello["complete"] is True
        assert client.hello["heartbeat_s"] == 20.0
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
    nodes: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    one, two = nodes
    with Client(one) as lost:
        auth = tambur.generate_auth_token(stream, lost.subscriber_id)
        subscribed = lost.ask("subscribe", stream, {"auth": auth})
        tambur.publish(f"private:{lost.subscriber_id}", "received")
        received = lost.json()
        hello = lost.hello
    for text in ("1", "2"):
        tambur.publish(f"auth:{stream}", text)
        tambur.publish(f"private:{lost.subscriber_id}", f"missed {text}")
    with Client(two, session=hello["session"], since=received[4]) as back:
        assert (back.hello["resumed"], back.hello["complete"]) == (True, True)
        assert back.hello["id"] == lost.subscriber_id != back.subscriber_id
        assert back.hello["session"] != hello["session"]
        assert back.bodies == ["missed 1", "missed 2"]
        options = {"auth": auth, "since": subscribed["position"]}
        assert back.ask("subscribe", stream, options)["complete"] is True
        assert back.bodies == ["1", "2"]
        # Private messages reach the session on any node.
        tambur.publish(f"private:{lost.subscriber_id}", "new")
        assert back.json()[3] == "new"


def test_a_resumed_session_replays_direct_messages(
    nodes: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    one, two = nodes
    with Client(one) as lost, Client(one) as sender:
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
        with Client(two, session=lost.hello["session"]) as back:
            answer = back.ask("subscribe", stream, {"since": since, "direct": ["alice", alice]})
            assert answer["complete"] is True
            assert back.bodies == ["1", ["bob", "2"], "3"]
            assert sender.ask("direct", stream, "alice", "4") == "ok"
            assert back.json()[3] == ["bob", "4"]


def test_using_a_key_ends_the_older_ones_of_its_session(nodes: tuple[Server, Server]) -> None:
    one, two = nodes
    with Client(one) as lost:
        first = lost.hello["session"]
    with Client(two, session=first) as back:
        older = back.hello["session"]
    with Client(one, session=first) as back:  # as if the ack had been lost
        newer = back.hello["session"]
    with Client(two, session=newer) as back:
        assert back.hello["resumed"] is True
    with Client(one, session=older) as late:
        assert late.hello["resumed"] is False


def test_resuming_closes_the_connection_that_has_the_session(nodes: tuple[Server, Server]) -> None:
    one, two = nodes
    with Client(one) as old, Client(two, session=old.hello["session"]) as new:
        assert new.hello["resumed"] is True
        assert old.close_code() == 4009
        # The key that was used last is still valid, since the ack may have been lost.
        with Client(one, session=old.hello["session"]) as back:
            assert back.hello["resumed"] is True
            assert new.close_code() == 4009
            with Client(two, session=back.hello["session"]) as newest:
                assert newest.hello["resumed"] is True
                assert back.close_code() == 4009
                # A later key was used.
                with Client(one, session=old.hello["session"], since="x") as late:
                    assert (late.hello["resumed"], late.hello["complete"]) == (False, False)
                    assert late.hello["id"] == late.subscriber_id
                assert newest.ask("subscribe", "still-open")["complete"] is True


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


def test_heartbeats_and_fresh_keys_come_by_themselves() -> None:
    limits = dataclasses.replace(LIMITS, ping_interval_s=1e6, ping_timeout_s=1e7)
    with clocked(Config(apps=(APP,), port=0, limits=limits)) as running, Client(running.server) as client:
        running.skip(LIMITS.heartbeat_s)
        assert Socket.json(client) == ["heartbeat"]
        running.skip(LIMITS.session_ttl_s / 2)
        word, fresh = Socket.json(client)
        assert word == "session"
        with Client(running.server, session=fresh) as back:
            assert back.hello["resumed"] is True


@pytest.mark.parametrize(("time", "limit_s"), [("issued_ms", 1000), ("begun_ms", 5000)])
def test_a_key_expires(server: Server, time: str, limit_s: int) -> None:
    keys = SessionKeys(API_KEY, APP_ID, (SECRET,), realm=server._hub.recovery.realm)
    with Client(server) as client:
        key = keys.verify(client.hello["session"])
        assert key is not None
        for older_s, resumed in ((limit_s + 1, False), (limit_s - 100, True)):
            older = key._replace(**{time: getattr(key, time) - 1000 * older_s})
            with Client(server, session=keys.sign(older)) as late:
                assert late.hello["resumed"] is resumed


def test_a_session_may_end_before_its_key_expires() -> None:
    limits = Limits(session_ttl_s=1000.0, session_max_s=100.0)
    with in_background(Config(apps=(APP,), port=0, limits=limits)) as server, Client(server) as client:
        keys = SessionKeys(API_KEY, APP_ID, (SECRET,), realm=server._hub.recovery.realm)
        key = keys.verify(client.hello["session"])
        assert key is not None
        ended = key._replace(begun_ms=key.begun_ms - 101_000)
        for text, resumed in ((keys.sign(ended), False), (client.hello["session"], True)):
            with Client(server, session=text) as back:
                assert back.hello["resumed"] is resumed


def test_no_key_is_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with Client(server) as client, Client(server, session=client.hello["session"]) as back:
        assert client.hello["session"] not in caplog.text
        assert back.hello["session"] not in caplog.text
        assert json.dumps(client.hello["session"]) not in caplog.text


def test_long_polling_refuses_a_hello(server: Server) -> None:
    with requests.Session() as session:
        url = f"{server.url}/comet/{API_KEY}/{APP_ID}"
        first = session.get(url, params={"instance": "1", "callback": "f"}, timeout=60)
        subscriber_id = re.findall('"id:([^"]*)"', first.text)[0]
        command = {"instance": "1", "callback": "f", "data": '["hello",1,{}]'}
        answer = session.get(f"{url}/{subscriber_id}", params=command, timeout=60)
        assert '["ack",1,"invalid_hello"]' in answer.text
