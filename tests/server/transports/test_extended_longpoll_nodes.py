"""Extended long polling on several nodes: any of them serves a connection, and passes the request on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tambur.server import Config, Limits, Server, in_background
from tests.support.app import APP, publisher

from ...support.clock import settle
from ...support.extended_polling import ExtendedPoller, content, post
from ...support.redis_server import RedisServer
from ...support.wire import ask, connect, read_answer


class Nodes(NamedTuple):
    one: Server
    two: Server


@pytest.fixture(scope="module")
def nodes(redis_server: RedisServer) -> Iterator[Nodes]:
    config = Config(apps=(APP,), port=0, broker=redis_server.url(), limits=Limits())
    with in_background(config) as one, in_background(config) as two:
        yield Nodes(one, two)


def connected(nodes: Nodes, stream: str) -> ExtendedPoller:
    """A subscriber of the first node, subscribed to a stream by way of the second."""
    # The first connection of a node to Redis takes some time.
    while (poller := ExtendedPoller(nodes.one)).hello == "unavailable":
        poller.send(close=1000)
    poller.server = nodes.two
    assert poller.ask("subscribe", stream)["complete"] is True
    return poller


def take(nodes: Nodes, session: str) -> ExtendedPoller:
    """Continue a session on the second node."""
    while (poller := ExtendedPoller(nodes.two, hello={"session": session})).hello == "unavailable":
        poller.send(close=1000)
    return poller


def test_a_request_reaches_its_connection_by_way_of_any_node(nodes: Nodes, stream: str) -> None:
    poller = connected(nodes, stream)
    with publisher(nodes.two) as tambur:
        for i, server in enumerate([*nodes, *nodes]):
            poller.server = server
            with poller.waiting_poll() as poll:
                tambur.publish(stream, str(i))
                assert poller.take(content(read_answer(poll)))[0][:4] == ["msg", stream, "public", str(i)]
        with connect(nodes.one) as older:
            older.sendall(poller.request())
            settle(nodes.one)
            poller.server = nodes.two
            assert poller.send(["unsubscribe", 10_000, stream]) == [["ack", 10_000, "ok"]]
            assert content(read_answer(older))["frames"] == []
        assert ask(nodes.one, post(poller.body(n=poller.n + 1))).status == 400
        assert ask(nodes.two, post(poller.body(n=poller.n + 1))).status == 400
        poller.send(close=1000)
    for server in nodes:
        assert ask(server, poller.request()).status == 404


def test_a_poll_that_breaks_at_another_node_leaves_its_frames(nodes: Nodes, stream: str) -> None:
    poller = connected(nodes, stream)
    with publisher(nodes.one) as tambur:
        for i in range(5):
            poller.waiting_poll().close()
            tambur.publish(stream, str(i))
            poller.server = nodes[i % 2]
            assert poller.next()[:4] == ["msg", stream, "public", str(i)]


def test_a_session_moves_to_another_node(nodes: Nodes, stream: str) -> None:
    poller = connected(nodes, stream)
    with publisher(nodes.one) as tambur, poller.waiting_poll() as poll:
        tambur.publish(stream, "received")
        (received,) = poller.take(content(read_answer(poll)))
        with poller.waiting_poll() as held:
            taker = take(nodes, poller.hello["session"])
            assert (taker.hello["resumed"], taker.hello["id"]) == (True, poller.subscriber_id)
            assert content(read_answer(held))["frames"][0][:2] == ["close", 4009]
        tambur.publish(stream, "missed")
        taker.server = nodes.one
        answer = taker.ask("subscribe", stream, {"since": received[4]})
        assert (answer["complete"], answer["replayed"]) == (True, 1)
        assert taker.next()[3] == "missed"
        tambur.publish(f"private:{poller.subscriber_id}", "private")
        assert taker.next()[3] == "private"
        taker.send(close=1000)


def test_the_secret_of_a_node_that_is_gone_is_404(nodes: Nodes, stream: str) -> None:
    poller = connected(nodes, stream)
    assert poller.secret is not None
    gone = "00000000" + poller.secret[8:]
    assert ask(nodes.one, post({"poll": gone, "n": 0})).status == 404
    changed = poller.secret[:-1] + ("A" if poller.secret[-1] != "A" else "B")
    for server in nodes:
        assert ask(server, post({"poll": changed, "n": 0})).status == 404
