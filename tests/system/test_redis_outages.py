"""Redis goes away, and comes back: with all that it knew, with nothing, or as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tambur import Tambur
from tambur.errors import CommandRefusedError, SubscriberClosedError
from tambur.server import Config, Server, in_background
from tambur.server.broker.redis import link
from tambur.subscriber import Message, Subscriber
from tests.support.app import API_KEY, APP, APP_ID, SECRET, subscriber
from tests.support.polling import Poller
from tests.support.redis_server import RedisServer

from ..support.wire import TIMEOUT_S, Answer, Socket, ask, signed

TOKENS = Tambur(API_KEY, APP_ID, SECRET, "localhost")
NODE_TIMEOUT_S = 60.0
"""No lease ends and no proof comes too late, however busy the machine is."""


@pytest.fixture
def redis(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis of the test's own, which remembers."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.end()


@contextlib.contextmanager
def two_nodes(redis: RedisServer) -> Iterator[tuple[Server, Server]]:
    config = Config(apps=(APP,), port=0, broker=redis.url(), node_timeout_s=NODE_TIMEOUT_S)
    with in_background(config) as one, in_background(config) as two:
        yield one, two


def publish(node: Server, stream: str, text: str) -> Answer:
    return ask(node, signed(node, stream, text))


def until_accepted(node: Server, request: bytes) -> Answer:
    """Send the same bytes again until the server takes them, as a publisher would."""
    deadline = time.monotonic() + TIMEOUT_S
    while (answer := ask(node, request)).status == 503:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def present(node: Server, stream: str, user_id: str) -> Subscriber:
    with contextlib.ExitStack() as unless_refused:
        made = unless_refused.enter_context(subscriber(node, stream))
        made.enable_presence(stream, user_id, TOKENS.generate_presence_token)
        unless_refused.pop_all()
    return made


def up_to(receiver: Subscriber, text: str) -> list[Message]:
    """All messages up to the one of that text, which must come."""
    received: list[Message] = []
    while not received or received[-1].text != text:
        received.append(receiver.receive(TIMEOUT_S))
    return received[:-1]


def refused(act: object) -> str:
    assert callable(act)
    with pytest.raises(CommandRefusedError) as caught:
        act()
    return caught.value.result


def test_while_redis_is_away_nothing_works_and_nothing_breaks(redis: RedisServer) -> None:
    with (
        two_nodes(redis) as (one, two),
        present(one, "s", "alice") as alice,
        present(two, "s", "bob") as bob,
        present(two, "s", "carol") as carol,
        subscriber(two, "s", "left", "later") as dave,
    ):
        assert sorted(m.user_id or "" for m in (alice.receive(TIMEOUT_S), alice.receive(TIMEOUT_S))) == [
            "bob",
            "carol",
        ]
        poller = Poller(one)
        before = signed(one, "s", "before")
        assert ask(one, before).status == 204
        redis.end()

        unsent = [signed(node, "s", f"unsent at {node.url}") for node in (one, two)]
        for node, request in zip((one, two), unsent, strict=True):
            answer = ask(node, request)
            assert (answer.status, answer.body) == (503, b"the broker cannot be reached\n")
            assert answer.headers["retry-after"] == "1"
        assert poller.command("subscribe", "t") == "unavailable"
        answer = ask(two, poller.request())
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert refused(lambda: dave.subscribe("t")) == "unavailable"
        assert refused(lambda: present(one, "s", "eve")) == "unavailable"
        alice.enable_direct("s", "alice", TOKENS.generate_direct_token)
        assert refused(lambda: alice.send_direct("s", "alice", "x")) == "unavailable"
        # Operations that end something take effect once Redis is back.
        bob.disable_presence("s")
        carol.close()
        dave.unsubscribe("left")

        redis.start()
        for node in (one, two):
            until_accepted(node, signed(node, "t", "both have found it"))
        for node, request in zip((one, two), unsent, strict=True):
            answer = until_accepted(node, request)
            assert (answer.status, answer.headers.get("tambur-replayed")) == (204, None)
        # Earlier claims still hold, and each new message came once.
        for request in (before, *unsent):
            assert ask(two, request).headers.get("tambur-replayed") == "true"
        poller.server = two
        assert poller.command("subscribe", "t") == "ok"
        publish(one, "left", "x")
        publish(one, "later", "x")
        publish(one, "s", "last")

        texts = ["before", f"unsent at {one.url}", f"unsent at {two.url}"]
        received = up_to(alice, "last")
        assert [m.text for m in received if m.kind == "public"] == texts
        assert sorted(m[2:] for m in received if m.kind == "presence") == [("down", "bob"), ("down", "carol")]
        dave_received = up_to(dave, "last")
        assert [m.text for m in dave_received if m.stream == "s"] == texts
        assert {m.stream for m in dave_received} == {"s", "later"}
        assert [m.text for m in up_to(bob, "last") if m.kind == "public"] == texts
        dave.subscribe("t")
        bob.enable_presence("s", "bob", TOKENS.generate_presence_token)
        assert alice.receive(TIMEOUT_S) == ("s", "presence", "up", "bob")
        assert bob.receive(TIMEOUT_S) == ("s", "presence", "up", "alice")


def until_closed(receiver: Subscriber) -> SubscriberClosedError:
    """Receive until the server closes the connection."""
    while True:
        try:
            receiver.receive(TIMEOUT_S)
        except SubscriberClosedError as error:
            return error


def test_subscribers_connect_again_when_redis_loses_all_data(redis: RedisServer) -> None:
    with (
        two_nodes(redis) as (one, two),
        present(one, "s", "alice") as alice,
        present(two, "s", "bob") as bob,
        present(two, "s", "carol") as carol,
    ):
        assert sorted(m.user_id or "" for m in (alice.receive(TIMEOUT_S), alice.receive(TIMEOUT_S))) == [
            "bob",
            "carol",
        ]
        assert [bob.receive(TIMEOUT_S).user_id for _ in range(2)] == ["alice", "carol"]
        redis.cli("CONFIG", "SET", "appendonly", "no")
        redis.end(signal.SIGKILL)
        carol.close()
        for path in redis.directory.glob("appendonlydir/*"):
            path.unlink()
        redis.start()
        for receiver in (alice, bob):
            assert until_closed(receiver).code == 1012
        for node in (one, two):
            until_accepted(node, signed(node, "t", "both have found it"))
        # Once all have connected again, each knows who is present.
        with present(one, "s", "alice") as back_one, present(two, "s", "bob") as back_two:
            pictures: list[set[str | None]] = []
            publish(two, "s", "last")
            for receiver in (back_one, back_two):
                received = up_to(receiver, "last")
                users = Counter(m.user_id for m in received if m.text == "up")
                users.subtract(m.user_id for m in received if m.text == "down")
                pictures.append({user_id for user_id, count in users.items() if count})
            assert pictures == [{"bob"}, {"alice"}]


def test_a_redis_that_is_stopped_for_a_while_delays_no_client(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        two_nodes(redis) as (one, two),
        present(one, "s", "alice") as alice,
        present(two, "s", "bob"),
        subscriber(two, "s") as carol,
    ):
        assert alice.receive(TIMEOUT_S).user_id == "bob"
        request = signed(one, "s", "once")
        with redis.paused():
            assert ask(one, request).status == 503
            assert refused(lambda: carol.subscribe("t")) == "unavailable"
            # From now on it is known, and nobody waits for Redis: that would last until the test times out.
            with monkeypatch.context() as forever:
                forever.setattr(link, "CALL_TIMEOUT_S", 10 * TIMEOUT_S)
                assert ask(one, signed(one, "s", "never")).status == 503
                assert refused(lambda: alice.subscribe("t")) == "unavailable"
        for node in (one, two):
            until_accepted(node, signed(node, "t", "both have found it"))
        answer = until_accepted(one, request)
        assert (answer.status, answer.headers.get("tambur-replayed")) == (204, None)
        assert ask(two, request).headers.get("tambur-replayed") == "true"
        publish(two, "s", "last")
        for receiver in (alice, carol):
            received = [m.text for m in up_to(receiver, "last")]
            assert received.count("once") == 1
            assert "never" not in received
            assert not {"up", "down"} & set(received)


def test_a_node_ends_in_time_though_redis_does_not_answer(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        with two_nodes(redis) as (one, _):
            stack.enter_context(present(one, "s", "alice"))
            stack.enter_context(redis.paused())
    assert "shutdown not confirmed by Redis" in caplog.text


def test_a_server_starts_without_redis_and_finds_it_later(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.end()
    url = redis.url().replace("redis://", "redis://:hunter2@")
    with in_background(Config(apps=(APP,), port=0, broker=url)) as node, Socket(node) as client:
        assert publish(node, "s", "x").status == 503
        assert client.command("hello", 1, {}) == ["ack", 1, "unavailable"]
        redis.start()  # without a password
        redis.cli("CONFIG", "SET", "requirepass", "hunter3")
        assert publish(node, "s", "x").status == 503
        redis.cli("CONFIG", "SET", "requirepass", "hunter2", password="hunter3")
        assert until_accepted(node, signed(node, "s", "x")).status == 204
        # The hello that was refused has changed nothing, and may be sent again.
        publish(node, f"private:{client.subscriber_id}", "plain")
        assert client.json() == ["msg", "private", "private", "plain"]
        assert client.command("hello", 2, {})[2] == "ok"
        publish(node, f"private:{client.subscriber_id}", "extended")
        assert client.json()[3] == "extended"
        redis.cli("CONFIG", "SET", "requirepass", "", password="hunter2")
    said = json.dumps([record.getMessage() for record in caplog.records])
    assert "Redis cannot be reached" in said
    assert "hunter" not in said


def test_a_redis_that_refuses_writes_counts_as_unavailable(redis: RedisServer) -> None:
    with two_nodes(redis) as (one, _), subscriber(one, "s") as receiver:
        redis.cli("CONFIG", "SET", "maxmemory", "1")
        request = signed(one, "s", "once")
        assert ask(one, request).status == 503
        redis.cli("CONFIG", "SET", "maxmemory", "0")
        assert until_accepted(one, request).headers.get("tambur-replayed") is None
        redis.cli("SCRIPT", "FLUSH")
        assert until_accepted(one, signed(one, "s", "last")).status == 204
        assert [m.text for m in up_to(receiver, "last")] == ["once"]
