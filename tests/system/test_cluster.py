"""Several servers over one Redis, seen from outside."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tambur import RateLimitedError, Tambur
from tambur.server import App, Config, Server, in_background
from tambur.server.transports import longpoll
from tambur.subscriber import Subscriber
from tests.support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber
from tests.support.node_process import NodeProcess
from tests.support.polling import Poller, request, value
from tests.support.redis_server import RedisServer

from ..support.wire import TIMEOUT_S, Listening, ask, begin_two, read_answer, signed

WATCHFUL_S = 4.0
"""The ``node_timeout_s`` of a node that soon sees that the lease of another one has ended."""

SLOW = App(API_KEY, "slow", (SECRET,), max_publishes_per_s=0.01)


def config(redis: RedisServer, *, database: int = 1, **settings: Any) -> Config:
    return Config(apps=(APP, SLOW), port=0, broker=redis.url(database), **settings)


@contextlib.contextmanager
def nodes(count: int, redis: RedisServer, **settings: Any) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(in_background(config(redis, **settings))) for _ in range(count)]


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer) -> Iterator[list[Server]]:
    """Three nodes that keep running."""
    with nodes(3, redis_server) as running:
        yield running


def test_messages_published_at_any_node_reach_the_subscribers_of_all_in_order(
    cluster: list[Server], stream: str
) -> None:
    with contextlib.ExitStack() as stack:
        subscribers = [stack.enter_context(subscriber(node, stream)) for node in (*cluster, *cluster)]
        publishers = [stack.enter_context(publisher(node)) for node in cluster]
        for i in range(30):
            publishers[i % 3].publish(stream, str(i))
        for one in subscribers:
            assert [one.receive(TIMEOUT_S).text for _ in range(30)] == [str(i) for i in range(30)]


def test_auth_private_and_direct_messages_cross_nodes(cluster: list[Server], stream: str) -> None:
    with (
        publisher(cluster[0]) as tambur,
        subscriber(cluster[1], stream) as alice,
        subscriber(cluster[2], stream) as bob,
    ):
        alice.enable_auth(stream, tambur.generate_auth_token)
        for name, one in (("alice", alice), ("bob", bob)):
            one.enable_direct(stream, name, tambur.generate_direct_token)
        tambur.publish(f"auth:{stream}", "to few")
        tambur.publish(f"private:{bob.subscriber_id}", "to bob")
        tambur.publish("private:nobody", "x")
        tambur.publish(f"private:{bob.subscriber_id[:8]}", "x")
        alice.send_direct(stream, "bob", "hi")
        alice.send_direct(stream, "nobody", "hi")
        tambur.publish(stream, "to all")
        assert [alice.receive(TIMEOUT_S)[1:3] for _ in range(2)] == [("auth", "to few"), ("public", "to all")]
        received = [bob.receive(TIMEOUT_S) for _ in range(3)]
        assert sorted(m.kind for m in received) == ["direct", "private", "public"]
        assert (stream, "direct", "hi", "alice") in received


def test_presence_is_the_clusters(cluster: list[Server], stream: str) -> None:
    token = Tambur(API_KEY, APP_ID, SECRET, cluster[0].url).generate_presence_token
    with subscriber(cluster[0], stream) as alice, subscriber(cluster[1], stream) as carol:
        alice.enable_presence(stream, "alice", token)
        carol.enable_presence(stream, "carol", token)
        assert alice.receive(TIMEOUT_S) == (stream, "presence", "up", "carol")
        assert carol.receive(TIMEOUT_S) == (stream, "presence", "up", "alice")
        bobs = [subscriber(node, stream) for node in cluster]
        for bob in bobs:
            bob.enable_presence(stream, "bob", token)
            there = [bob.receive(TIMEOUT_S) for _ in range(2)]
            assert sorted(message.user_id or "" for message in there) == ["alice", "carol"]
        bobs[0].close()
        bobs[1].disable_presence(stream)
        bobs[2].unsubscribe(stream)
        for one in (alice, carol):
            assert [one.receive(TIMEOUT_S)[2:] for _ in range(2)] == [("up", "bob"), ("down", "bob")]
        for bob in bobs:
            bob.close()


def test_a_request_sent_again_through_another_node_is_delivered_once(
    cluster: list[Server], stream: str
) -> None:
    once = signed(cluster[0], stream, "once")
    with subscriber(cluster[1], stream) as receiver, publisher(cluster[2]) as tambur:
        for node in cluster:
            answer = ask(node, once)
            assert (answer.status, answer.headers.get("tambur-replayed")) == (
                204,
                None if node is cluster[0] else "true",
            )
        tambur.publish(stream, "last")
        assert [receiver.receive(TIMEOUT_S).text for _ in range(2)] == ["once", "last"]


def test_a_rate_limit_is_the_clusters(cluster: list[Server], stream: str) -> None:
    refused = 0
    for i in range(6):
        with Tambur(API_KEY, "slow", SECRET, cluster[i % 3].url, max_retries=0) as tambur:
            try:
                tambur.publish(stream, str(i))
            except RateLimitedError as error:
                refused += 1
                assert error.retry_after is not None
                assert 0 < error.retry_after <= 100
    assert refused == 5


class Roamer(Poller):
    """A poller behind a balancer that sends each request to another node."""

    def __init__(self, servers: list[Server]) -> None:
        self._next = itertools.cycle(servers)
        super().__init__(servers[0])

    @property
    def server(self) -> Listening:
        return next(self._next)

    @server.setter
    def server(self, _: Listening) -> None:
        pass

    def waiting_poll(self) -> socket.socket:
        answer, waiting = begin_two((self.server, self.request()), (self.server, self.request()))
        assert value(answer) is None
        return waiting


def test_a_poller_may_come_by_any_node(cluster: list[Server], stream: str) -> None:
    poller = Roamer(cluster)
    with publisher(cluster[0]) as tambur, subscriber(cluster[2], stream) as other:
        for i in range(3):
            assert poller.command("subscribe", f"{stream}{i}") == "ok"
        assert poller.command("subscribe", f"{stream}1") == "already_subscribed"
        assert poller.command("subscribe", stream) == "ok"
        assert poller.send("nonsense\n") == ["ack", 0, "not JSON"]
        token = tambur.generate_presence_token(stream, "poller", poller.subscriber_id)
        assert poller.command("set_mode", "presence", stream, "poller", token) == "ok"
        for i in range(9):
            tambur.publish(f"{stream}{i % 3}", f"{i} \u00e9")
        assert [poller.poll()[3] for _ in range(9)] == [f"{i} \u00e9" for i in range(9)]
        other.enable_presence(stream, "other", tambur.generate_presence_token)
        assert other.receive(TIMEOUT_S) == (stream, "presence", "up", "poller")
        assert poller.poll() == ["msg", stream, "presence", ["other", "up"]]
        assert poller.send("fin") is None
        assert other.receive(TIMEOUT_S) == (stream, "presence", "down", "poller")
        for node in cluster:
            assert ask(node, poller.request()).status == 404


def test_a_poll_waits_at_any_node(cluster: list[Server], stream: str) -> None:
    poller = Roamer(cluster)
    assert poller.command("subscribe", stream) == "ok"
    with publisher(cluster[0]) as tambur:
        for i in range(6):
            with poller.waiting_poll() as older, poller.waiting_poll() as newer:
                assert value(read_answer(older)) is None
                tambur.publish(stream, str(i))
                assert value(read_answer(newer)) == ["msg", stream, "public", str(i)]


def test_a_message_for_a_poll_that_was_broken_off_at_another_node_waits_for_the_next(
    cluster: list[Server], stream: str
) -> None:
    poller = Roamer(cluster)
    with publisher(cluster[0]) as tambur:
        for i in range(6):
            poller.waiting_poll().close()
            for _ in range(9):  # each takes the nodes several turns, and so past the broken poll
                assert poller.command("subscribe", "private") == "invalid_stream"
            tambur.publish(f"private:{poller.subscriber_id}", str(i))
            assert poller.poll() == ["msg", "private", "private", str(i)]


def test_a_client_whose_poll_breaks_at_another_node_is_gone_soon(
    cluster: list[Server], stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(longpoll, "BROKEN_POLL_GRACE_S", 0.2)
    with publisher(cluster[0]) as tambur, subscriber(cluster[1], stream) as other:
        other.enable_presence(stream, "other", tambur.generate_presence_token)
        poller = Poller(cluster[0])
        poller.server = cluster[2]
        assert poller.command("subscribe", stream) == "ok"
        token = tambur.generate_presence_token(stream, "poller", poller.subscriber_id)
        assert poller.command("set_mode", "presence", stream, "poller", token) == "ok"
        assert other.receive(TIMEOUT_S) == (stream, "presence", "up", "poller")
        assert poller.poll() == ["msg", stream, "presence", ["other", "up"]]
        poller.waiting_poll().close()
        assert other.receive(TIMEOUT_S) == (stream, "presence", "down", "poller")


def test_all_nodes_forget_a_client_that_does_not_poll(cluster: list[Server]) -> None:
    with subscriber(cluster[0]) as other:
        for node in cluster:
            assert ask(node, request(f"/{other.subscriber_id}")).status == 404
    poller = Poller(cluster[0])
    elsewhere = request(f"/{poller.subscriber_id}").replace(APP_ID.encode(), b"slow")
    for node in cluster:
        assert ask(node, elsewhere).status == 404


def test_a_node_that_ends_answers_the_polls_at_the_others(redis_server: RedisServer) -> None:
    with nodes(1, redis_server) as (other,):
        with nodes(1, redis_server) as (home,):
            poller = Poller(home)
            poller.server = other
            poll = poller.waiting_poll()
        with poll:
            assert value(read_answer(poll)) is None
        assert ask(other, poller.request()).status == 404


def test_the_users_of_a_killed_node_are_down_and_others_stay(
    redis_server: RedisServer, stream: str, tmp_path: Path
) -> None:
    others = redis_server.leased(2)
    victim = NodeProcess(tmp_path, redis_server.url(2))
    of_victim = redis_server.leased(2) - others
    with (
        nodes(1, redis_server, database=2, node_timeout_s=WATCHFUL_S) as (node,),
        subscriber(node, stream) as alice,
    ):
        token = Tambur(API_KEY, APP_ID, SECRET, node.url).generate_presence_token
        alice.enable_presence(stream, "alice", token)
        lost: list[Subscriber] = []
        for user in ("bob", "carol"):
            lost.append(Subscriber(API_KEY, APP_ID, victim.url, timeout=TIMEOUT_S))
            lost[-1].subscribe(stream)
            lost[-1].enable_presence(stream, user, token)
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "up", user)
        victim.end(signal.SIGKILL)
        with subscriber(node, stream) as carol:
            carol.enable_presence(stream, "carol", token)
            redis_server.end_leases(2, of_victim)
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "down", "bob")
            carol.disable_presence(stream)
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "down", "carol")
        for one in lost:
            one.close()


def test_a_node_that_was_stopped_for_a_while_is_taken_for_dead_and_comes_back(
    redis_server: RedisServer, stream: str, tmp_path: Path
) -> None:
    others = redis_server.leased(2)
    sleeper = NodeProcess(tmp_path, redis_server.url(2))
    of_sleeper = redis_server.leased(2) - others
    with nodes(1, redis_server, database=2, node_timeout_s=WATCHFUL_S) as (node,):
        token = Tambur(API_KEY, APP_ID, SECRET, node.url).generate_presence_token
        with (
            subscriber(node, stream) as alice,
            Subscriber(API_KEY, APP_ID, sleeper.url, timeout=TIMEOUT_S) as bob,
        ):
            alice.enable_presence(stream, "alice", token)
            bob.subscribe(stream)
            bob.enable_presence(stream, "bob", token)
            assert bob.receive(TIMEOUT_S) == (stream, "presence", "up", "alice")
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "up", "bob")
            sleeper.process.send_signal(signal.SIGSTOP)
            redis_server.end_leases(2, of_sleeper)
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "down", "bob")
            sleeper.process.send_signal(signal.SIGCONT)
            assert alice.receive(TIMEOUT_S) == (stream, "presence", "up", "bob")
            alice.disable_presence(stream)
            assert bob.receive(TIMEOUT_S) == (stream, "presence", "down", "alice")
            sleeper.end(signal.SIGTERM)
