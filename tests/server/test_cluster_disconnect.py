"""Disconnects that hold on every node over a real Redis, also on one that was away: section 9 of the protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tambur import Tambur, UnavailableError
from tambur.server import Config, Server, in_background

from ..support.app import API_KEY, APP, APP_ID, SECRET, publisher
from ..support.extended import Client
from ..support.redis_server import RedisServer
from ..support.tcp_proxy import TcpProxy

DATABASE = 8


def config(port: int) -> Config:
    return Config(apps=(APP,), port=0, broker=f"redis://127.0.0.1:{port}/{DATABASE}", node_timeout_s=60)


@pytest.fixture(scope="module")
def servers(redis_server: RedisServer) -> Iterator[tuple[Server, Server]]:
    with in_background(config(redis_server.port)) as one, in_background(config(redis_server.port)) as two:
        yield one, two


@pytest.fixture
def tambur(servers: tuple[Server, Server]) -> Iterator[Tambur]:
    with publisher(servers[0]) as made:
        yield made


def present(client: Client, tambur: Tambur, stream: str, user: str) -> object:
    token = tambur.generate_presence_token(stream, user, client.hello["id"])
    return client.ask("subscribe", stream, {"presence": [user, token]})


def is_resumed(server: Server, client: Client) -> bool:
    with Client(server, session=client.hello["session"]) as back:
        resumed: bool = back.hello["resumed"]
        return resumed


@pytest.mark.parametrize("by", ["subscriber_id", "user_id"])
def test_a_disconnected_session_is_resumed_on_no_node(
    servers: tuple[Server, Server], tambur: Tambur, stream: str, by: str
) -> None:
    user = f"{by}-{stream}"
    with Client(servers[1]) as connected, Client(servers[1]) as lost:
        present(connected, tambur, stream, user)
        present(lost, tambur, stream, user)
        lost.connection.close()
        if by == "user_id":
            assert tambur.disconnect(user_id=user) == 2
        else:
            for client in (connected, lost):
                assert tambur.disconnect(subscriber_id=client.subscriber_id) == 1
        assert connected.close_code() == 4003
    for server in servers:
        assert not is_resumed(server, connected)
        assert not is_resumed(server, lost)
    assert tambur.users(stream) == []


def test_a_session_that_moved_is_found_where_it_is(
    servers: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    user = f"alice-{stream}"
    with Client(servers[0]) as lost:
        present(lost, tambur, stream, user)
    with Client(servers[1], session=lost.hello["session"]) as back:
        assert back.hello["resumed"] is True
        present(back, tambur, stream, user)
        assert tambur.disconnect(user_id=user) == 1
        assert back.close_code() == 4003
    assert not is_resumed(servers[0], back)


def test_a_node_that_starts_later_knows_of_a_disconnect(
    redis_server: RedisServer, servers: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    user = f"alice-{stream}"
    with Client(servers[0]) as ended, Client(servers[0]) as other:
        present(ended, tambur, stream, user)
        assert tambur.disconnect(user_id=user) == 1
        with in_background(config(redis_server.port)) as later:
            assert not is_resumed(later, ended)
            with Client(later, session=other.hello["session"]) as back:
                assert back.hello["resumed"] is True
                assert present(back, tambur, stream, user) == "invalid_token"
            with Client(later) as fresh:
                assert present(fresh, tambur, stream, user) != "invalid_token"


@contextlib.contextmanager
def away(link: TcpProxy) -> Iterator[None]:
    """Cut a node's link to Redis, and restore it."""
    link.refuse(True)
    link.drop()
    try:
        yield
    finally:
        link.refuse(False)


def test_a_disconnect_takes_effect_on_a_node_once_it_is_back(redis_server: RedisServer, stream: str) -> None:
    user, other_user = f"alice-{stream}", f"bob-{stream}"
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(TcpProxy(redis_server.port))
        one = stack.enter_context(in_background(config(redis_server.port)))
        two = stack.enter_context(in_background(config(link.port)))
        tambur = stack.enter_context(Tambur(API_KEY, APP_ID, SECRET, one.url, max_retries=0))
        alice, bob, plain = (stack.enter_context(Client(two)) for _ in range(3))
        back_before = stack.enter_context(Client(two))
        tambur.disconnect(user_id=other_user)
        for client, name in ((alice, user), (bob, "carol"), (back_before, other_user)):
            token = tambur.generate_direct_token(stream, name, client.subscriber_id)
            answer = client.ask("subscribe", stream, {"direct": [name, token]})
            assert (answer == "invalid_token") is (client is back_before)
        again = stack.enter_context(Client(two))
        token = tambur.generate_direct_token(stream, other_user, again.subscriber_id)
        assert again.ask("subscribe", stream, {"direct": [other_user, token]}) != "invalid_token"
        with away(link):
            for target in ({"user_id": user}, {"subscriber_id": plain.subscriber_id}):
                with pytest.raises(UnavailableError, match="cannot be reached"):
                    tambur.disconnect(**target)
            with pytest.raises(UnavailableError):
                list(tambur.streams())
        assert alice.close_code() == 4003
        assert plain.close_code() == 4003
        for client in (alice, plain):
            assert not is_resumed(one, client)
        # The disconnect that the node had heard of before does not take effect again.
        for client in (bob, again):
            while (answer := client.ask("subscribe", f"{stream}2")) == "unavailable":
                pass
            assert answer["complete"] is True


def test_a_redis_that_lost_its_data_learns_of_disconnects_from_the_nodes(
    redis_server: RedisServer, servers: tuple[Server, Server], tambur: Tambur, stream: str
) -> None:
    user = f"alice-{stream}"
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(TcpProxy(redis_server.port))
        one = stack.enter_context(in_background(config(link.port)))
        ended, other = (stack.enter_context(Client(one)) for _ in range(2))
        present(ended, tambur, stream, user)
        assert tambur.disconnect(user_id=user) == 1
        redis_server.cli("DEL", *keys(redis_server), database=DATABASE)
        assert keys(redis_server) == []
        link.drop()
        while len(keys(redis_server)) < 2:
            with contextlib.suppress(UnavailableError):
                tambur.users(stream)
        later = stack.enter_context(in_background(config(redis_server.port)))
        assert not is_resumed(later, ended)
        back = stack.enter_context(Client(later, session=other.hello["session"]))
        assert present(back, tambur, stream, user) == "invalid_token"


def keys(redis_server: RedisServer) -> list[str]:
    """The keys of disconnects."""
    return redis_server.cli("KEYS", "tambur:*:revoked-*", database=DATABASE).split()
