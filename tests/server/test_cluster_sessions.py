"""Sessions and replay on two nodes over Redis: section 7 of the protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from websockets.frames import Opcode

from tambur import Tambur
from tambur.server import Config, Server, in_background

from ..support.app import API_KEY, APP, SECRET, publisher
from ..support.extended import KEPT_APP, Client
from ..support.redis_server import RedisServer


@pytest.fixture(scope="module")
def nodes(redis_server: RedisServer) -> Iterator[tuple[Server, Server]]:
    config = Config(apps=(APP, KEPT_APP), port=0, broker=redis_server.url(database=4))
    with in_background(config) as one, in_background(config) as two:
        yield one, two


@pytest.fixture
def tambur(nodes: tuple[Server, Server]) -> Iterator[Tambur]:
    with publisher(nodes[0]) as made:
        yield made


def receives(client: Client) -> bool:
    """Whether the next frame of a client is a message, and not the close of a session that moved."""
    frame = client.frame()
    while frame.opcode is Opcode.PING:
        frame = client.frame()
    if frame.opcode is Opcode.TEXT:
        return True
    assert frame.opcode is Opcode.CLOSE
    assert client.protocol.close_rcvd is not None
    assert client.protocol.close_rcvd.code == 4009
    return False


def test_all_nodes_give_the_same_positions(nodes: tuple[Server, Server], tambur: Tambur, stream: str) -> None:
    clients = [Client(node) for node in nodes]
    for client in clients:
        client.ask("subscribe", stream)
    tambur.publish(stream, "1")
    tambur.publish(stream, "2")
    received = [[client.json() for _ in range(2)] for client in clients]
    assert received[0] == received[1]
    for client, node in zip(clients, reversed(nodes), strict=True):
        client.connection.close()
        with Client(node) as back:
            answer = back.ask("subscribe", stream, {"since": received[0][0][4]})
            assert (answer["complete"], back.bodies) == (True, ["2"])


def test_of_connections_that_resume_at_once_one_is_left(nodes: tuple[Server, Server], tambur: Tambur) -> None:
    for _ in range(5):
        with Client(nodes[0]) as lost:
            pass
        back: list[Client] = []
        threads = [
            threading.Thread(
                target=lambda node: back.append(Client(node, session=lost.hello["session"])),  # noqa: B023
                args=(nodes[i % 2],),
            )
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # All others were closed, or have a session of their own.
        tambur.publish(f"private:{lost.subscriber_id}", "to one")
        resumed = [client for client in back if client.hello["resumed"]]
        assert len(back) == 4
        assert sum(receives(client) for client in resumed) == 1
        for client in back:
            client.connection.close()


def test_the_newest_messages_of_all_nodes_are_replayed(nodes: tuple[Server, Server], stream: str) -> None:
    room = f"room-{stream}"
    with Tambur(API_KEY, "kept", SECRET, nodes[0].url) as publisher:
        for i in range(4):
            publisher.publish(room, str(i))
    with Client(nodes[1], app_id="kept") as client:
        assert client.ask("subscribe", room, {"last": 2})["replayed"] == 2
        assert client.bodies == ["2", "3"]
