"""Users of lost connections over Redis, while links fail and nodes stop."""

from __future__ import annotations

import pytest

from tests.support.broker import APP, RecordingBackend, eventually, nobody_asks
from tests.support.redis_nodes import backend, end_linger, ready, run, shard
from tests.support.redis_server import RedisServer

UP = ("bob", b'["msg","s","presence",["bob","up"]]')
DOWN = ("bob", b'["msg","s","presence",["bob","down"]]')


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


async def enter(alices: RecordingBackend, bobs: RecordingBackend) -> None:
    """Alice and Bob are present, each on a node."""
    for node in (alices, bobs):
        await node.broker.subscribe(APP, "s")
    await alices.presence.join(APP, "s", "alice", "a1")
    await bobs.presence.join(APP, "s", "bob", "b1")
    await eventually(lambda: UP in alices.presence_events())


def test_a_lingering_user_survives_a_failure_of_the_link(redis_server: RedisServer) -> None:
    async def scenario(alices: RecordingBackend, bobs: RecordingBackend) -> None:
        await enter(alices, bobs)
        bobs.presence.leave(APP, "s", "bob", "b1", linger_s=1000)
        link = shard(bobs).link
        assert link is not None
        link.fail(ConnectionResetError("test"))
        await ready(bobs)
        await bobs.presence.join(APP, "s", "bob", "b2")
        bobs.presence.leave(APP, "s", "bob", "b2", linger_s=0.01)
        await eventually(lambda: DOWN in alices.presence_events())
        assert [event for event in alices.presence_events() if event[0] == "bob"] == [UP, DOWN]

    run(redis_server, 2, scenario)


def test_a_user_that_lingers_longer_than_an_outage_leaves_afterwards(redis_server: RedisServer) -> None:
    async def scenario(alices: RecordingBackend, bobs: RecordingBackend) -> None:
        await enter(alices, bobs)
        link = shard(bobs).link
        assert link is not None
        bobs.presence.leave(APP, "s", "bob", "b1", linger_s=0.01)
        link.fail(ConnectionResetError("test"))
        await eventually(lambda: DOWN in alices.presence_events())

    run(redis_server, 2, scenario)


def test_users_that_return_from_a_stopped_node_cause_no_event(redis_server: RedisServer) -> None:
    async def scenario(alices: RecordingBackend, bobs: RecordingBackend) -> None:
        await enter(alices, bobs)
        bobs.presence.leave(APP, "s", "bob", "b1", linger_s=1000)
        await bobs.backend.close()
        assert redis_server.cli("ZRANGE", "tambur:0:leases", "0", "-1") == shard(alices).node
        await alices.presence.join(APP, "s", "bob", "b2")
        end_linger(redis_server, bobs)
        # The node of Alice removes the users of the other, without an event.
        await eventually(lambda: redis_server.cli("ZCARD", "tambur:0:stopped") == "0")
        await alices.settle()
        assert [event for event in alices.presence_events() if event[0] == "bob"] == [UP]
        alices.presence.leave(APP, "s", "bob", "b2")
        await alices.settle()
        assert [event for event in alices.presence_events() if event[0] == "bob"] == [UP, DOWN]

    run(redis_server, 2, scenario)


def test_users_that_do_not_return_from_a_stopped_node_leave(redis_server: RedisServer) -> None:
    async def scenario(alices: RecordingBackend, bobs: RecordingBackend) -> None:
        await enter(alices, bobs)
        bobs.presence.leave(APP, "s", "bob", "b1", linger_s=0.2)
        await bobs.backend.close()
        await eventually(lambda: DOWN in alices.presence_events())
        assert redis_server.cli("EXISTS", f"tambur:0:node:{shard(bobs).node}") == "0"

    run(redis_server, 2, scenario)


def test_a_node_that_starts_later_removes_the_users_of_a_stopped_one(redis_server: RedisServer) -> None:
    async def scenario(alices: RecordingBackend, bobs: RecordingBackend) -> None:
        await enter(alices, bobs)
        bobs.presence.leave(APP, "s", "bob", "b1", linger_s=1000)
        alices.presence.leave(APP, "s", "alice", "a1", linger_s=1000)
        await bobs.backend.close()
        await alices.backend.close()
        assert redis_server.cli("ZCARD", "tambur:0:stopped") == "2"
        end_linger(redis_server, alices, bobs)
        later = RecordingBackend(backend(redis_server))
        await later.backend.start(later.deliver, nobody_asks)
        await later.broker.subscribe(APP, "s")
        await eventually(lambda: redis_server.cli("KEYS", "*:s").split("\n") == [""])
        await later.backend.close()

    run(redis_server, 2, scenario)
