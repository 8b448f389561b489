"""Queries and disconnects that cover several nodes over a real Redis: section 9 of the protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tambur import Tambur
from tambur.server import Config, Server, in_background

from ..support.app import APP, publisher, subscriber
from ..support.redis_server import RedisServer
from ..support.wire import Socket


@pytest.fixture(scope="module")
def servers(redis_server: RedisServer) -> Iterator[tuple[Server, Server]]:
    config = Config(apps=(APP,), port=0, broker=redis_server.url(7))
    with in_background(config) as one, in_background(config) as two:
        yield one, two


@pytest.fixture
def tambur(servers: tuple[Server, Server]) -> Iterator[Tambur]:
    with publisher(servers[0]) as made:
        yield made


def test_users_of_all_nodes_are_present(servers: tuple[Server, Server], tambur: Tambur, stream: str) -> None:
    one, two = servers
    with subscriber(one, stream) as first, subscriber(two, stream) as second, publisher(two) as other:
        first.enable_presence(stream, "bob", tambur.generate_presence_token)
        second.enable_presence(stream, "alice", tambur.generate_presence_token)
        assert tambur.users(stream) == other.users(stream) == ["alice", "bob"]
    assert tambur.users(f"{stream}2") == []


def test_subscribers_of_all_nodes_are_summed(
    servers: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    one, two = servers
    names = [f"{stream}-{i}" for i in range(4)]
    with subscriber(one, names[0], names[1]), subscriber(two, names[1], names[3]) as second:
        second.enable_presence(names[1], "alice", tambur.generate_presence_token)
        assert list(tambur.streams(stream)) == [(names[0], 1, 0), (names[1], 2, 1), (names[3], 1, 0)]


def test_pages_of_streams_cover_all_nodes(
    servers: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    names = [f"{stream}-{i:04}" for i in range(1200)]
    # A connection may have 1,000 streams. The names alternate between the nodes.
    with Socket(servers[0]) as one, Socket(servers[1]) as two:
        for i, name in enumerate(names):
            (one, two)[i % 2].send("subscribe", i + 1, name)
        for each in (one, two):
            for _ in range(600):
                assert each.json()[2] == "ok"
        assert [info.stream for info in tambur.streams(stream)] == names


@pytest.mark.parametrize("by", ["subscriber_id", "user_id"])
def test_a_disconnect_reaches_all_nodes(
    servers: tuple[Server, Server], tambur: Tambur, stream: str, by: str
) -> None:
    one, two = servers
    user = f"{by}-{stream}"
    with Socket(one) as first, Socket(two) as second:
        for each in (first, second):
            each.command("subscribe", 1, stream)
            token = tambur.generate_direct_token(stream, user, each.subscriber_id)
            assert each.command("set_mode", 2, "direct", stream, user, token) == ["ack", 2, "ok"]
        if by == "user_id":
            assert tambur.disconnect(user_id=user) == 2
            assert first.close_code() == 4003
        else:
            assert tambur.disconnect(subscriber_id=second.subscriber_id) == 1
            assert first.command("subscribe", 3, f"{stream}2") == ["ack", 3, "ok"]
        assert second.close_code() == 4003


def test_modes_as_a_disconnected_user_are_refused_on_all_nodes(
    servers: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    user = f"alice-{stream}"
    with Socket(servers[1]) as plain:
        plain.command("subscribe", 1, stream)
        assert tambur.disconnect(user_id=user) == 0
        token = tambur.generate_direct_token(stream, user, plain.subscriber_id)
        assert plain.command("set_mode", 2, "direct", stream, user, token) == ["ack", 2, "invalid_token"]
    with Socket(servers[1]) as later:
        later.command("subscribe", 1, stream)
        token = tambur.generate_direct_token(stream, user, later.subscriber_id)
        assert later.command("set_mode", 2, "direct", stream, user, token) == ["ack", 2, "ok"]


def test_history_is_the_same_on_every_node(
    servers: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    with publisher(servers[1]) as other:
        start = other.history(stream)
        assert (start.messages, start.complete, start.more) == ([], True, False)
        for i in range(5):
            tambur.publish(f"auth:{stream}" if i == 3 else stream, str(i))
        newest = other.history(stream, limit=3)
        assert [(m.kind, m.message) for m in newest.messages] == [
            ("public", "2"),
            ("auth", "3"),
            ("public", "4"),
        ]
        assert newest.more is True
        assert tambur.history(stream, limit=3).messages == newest.messages
        some = tambur.history(stream, since=start.position, limit=2)
        assert [m.message for m in some.messages] == ["0", "1"]
        assert (some.complete, some.more) == (True, True)
        rest = other.history(stream, since=some.position)
        assert [m.message for m in rest.messages] == ["2", "3", "4"]
        tambur.publish(stream, "5")
        assert [m.message for m in other.history(stream, since=rest.position).messages] == ["5"]
        assert other.history(stream, since="A" * 22).complete is False
        assert stream not in [info.stream for info in tambur.streams()], "a query subscribes nobody"
