"""Queries and disconnects while a node is killed or stands still: section 9 of the protocol."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tambur import SubscriberClosedError, Tambur, UnavailableError
from tambur.subscriber import Subscriber

from ..support.app import API_KEY, APP_ID, SECRET
from ..support.node_process import NodeProcess
from ..support.redis_server import RedisServer

TIMEOUT_S = 60
WATCHFUL_S = 4
"""The ``node_timeout_s`` of a node that soon sees that the lease of another one has ended."""

DATABASE = 9
PAUSE_S = 0.05

T = TypeVar("T")


@pytest.fixture
def nodes(redis_server: RedisServer, tmp_path: Path) -> Iterator[list[NodeProcess]]:
    redis_server.cli("FLUSHDB", database=DATABASE)  # nodes of earlier tests, which were killed
    made = []
    try:
        for name, timeout_s in (("one", WATCHFUL_S), ("two", 30)):
            (tmp_path / name).mkdir()
            url = redis_server.url(DATABASE)
            made.append(NodeProcess(tmp_path / name, url, node_timeout_s=timeout_s))
        yield made
    finally:
        for node in made:
            node.end(signal.SIGKILL)


@pytest.fixture
def tambur(nodes: list[NodeProcess]) -> Iterator[Tambur]:
    with Tambur(API_KEY, APP_ID, SECRET, nodes[0].url, max_retries=0) as made:
        yield made


@contextlib.contextmanager
def present(node: NodeProcess, tambur: Tambur, stream: str, user: str) -> Iterator[Subscriber]:
    with Subscriber(API_KEY, APP_ID, node.url, timeout=TIMEOUT_S) as one:
        one.subscribe(stream)
        one.enable_presence(stream, user, tambur.generate_presence_token)
        yield one


def answers(ask: Callable[[], T], right: T) -> list[T]:
    """Ask until the answer is right; return the different answers, without refusals for a missing or slow node."""
    found: list[T] = []
    while right not in found:
        with contextlib.suppress(UnavailableError):
            answer = ask()
            if answer not in found:
                found.append(answer)
        time.sleep(PAUSE_S)  # asking without a pause would take a processor
    return found


def test_no_query_leaves_a_killed_node_out_before_its_lease_ends(
    nodes: list[NodeProcess], redis_server: RedisServer, tambur: Tambur, stream: str
) -> None:
    with present(nodes[0], tambur, stream, "alice"), present(nodes[1], tambur, stream, "bob"):
        assert answers(lambda: tambur.users(stream), ["alice", "bob"]) == [["alice", "bob"]]
        assert answers(lambda: list(tambur.streams(stream)), [(stream, 2, 2)]) == [[(stream, 2, 2)]]
        nodes[1].end(signal.SIGKILL)
        with pytest.raises(UnavailableError) as caught:
            list(tambur.streams(stream))
        found = re.search("503: the node ([0-9a-f]{8}) cannot be reached", str(caught.value))
        assert found is not None, caught.value
        killed = {node for node in redis_server.leased(DATABASE) if node.startswith(found[1])}
        redis_server.end_leases(DATABASE, killed)
        assert answers(lambda: tambur.users(stream), ["alice"]) in (
            [["alice", "bob"], ["alice"]],
            [["alice"]],
        )
        # Bob may be present for a moment after the lease of the node has ended.
        assert answers(lambda: list(tambur.streams(stream)), [(stream, 1, 1)]) in (
            [[(stream, 1, 2)], [(stream, 1, 1)]],
            [[(stream, 1, 1)]],
        )


def test_a_disconnect_takes_effect_on_a_node_that_stood_still(
    nodes: list[NodeProcess], tambur: Tambur, stream: str
) -> None:
    with (
        present(nodes[0], tambur, stream, "alice") as here,
        present(nodes[1], tambur, stream, "alice") as there,
    ):
        with nodes[1].paused():
            with pytest.raises(UnavailableError, match="did not answer"):
                tambur.disconnect(user_id="alice")
            with pytest.raises(SubscriberClosedError) as caught:
                here.receive(TIMEOUT_S)
            assert caught.value.code == 4003
        with pytest.raises(SubscriberClosedError) as caught:
            there.receive(TIMEOUT_S)
        assert caught.value.code == 4003
