"""Subscribers of a node that is killed continue on another one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tambur import Tambur
from tambur.subscriber import Subscriber

from ..support.app import API_KEY, APP_ID, SECRET
from ..support.node_process import NodeProcess
from ..support.redis_server import RedisServer
from ..support.tcp_proxy import TcpProxy

TIMEOUT_S = 60
NAMES = ("one", "two")


@pytest.fixture
def nodes(redis_server: RedisServer, tmp_path: Path) -> Iterator[list[NodeProcess]]:
    made = []
    try:
        for name in NAMES:
            (tmp_path / name).mkdir()
            made.append(NodeProcess(tmp_path / name, redis_server.url(3)))
        yield made
    finally:
        for node in made:
            node.end(signal.SIGKILL)


def test_a_killed_node_loses_nothing_for_subscribers_that_resume(
    nodes: list[NodeProcess], stream: str
) -> None:
    killed, other = nodes
    with (
        TcpProxy(killed.port, other.port) as proxy,
        Tambur(API_KEY, APP_ID, SECRET, other.url) as tambur,
        Subscriber(API_KEY, APP_ID, f"127.0.0.1:{proxy.port}", reconnect=True, timeout=TIMEOUT_S) as one,
    ):
        one.subscribe(stream)
        one.enable_auth(stream, tambur.generate_auth_token(stream, one.subscriber_id))
        before = one.subscriber_id
        tambur.publish(stream, "before")
        assert one.receive(TIMEOUT_S).text == "before"
        killed.end(signal.SIGKILL)
        for i in range(50):
            tambur.publish(stream, str(i))
            tambur.publish(f"auth:{stream}", str(i))
        received = [one.receive(TIMEOUT_S) for _ in range(100)]
        assert [(m.kind, m.text) for m in received] == [
            (kind, str(i)) for i in range(50) for kind in ("public", "auth")
        ]
        assert one.subscriber_id == before
        tambur.publish(f"private:{before}", "private")
        assert one.receive(TIMEOUT_S).text == "private"
