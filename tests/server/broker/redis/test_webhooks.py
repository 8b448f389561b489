"""The queues of webhooks in Redis: the contract, and nodes that die."""

from __future__ import annotations

import asyncio

import pytest

from tambur.server import Limits
from tambur.server.broker import Backend
from tests.support.broker import APP, eventually, nobody_asks
from tests.support.redis_nodes import backend
from tests.support.redis_server import RedisServer

from ..webhook_contract import APPS, LEFT_QUEUE, QUEUE, WebhookContract


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


class TestRedisWebhooks(WebhookContract):
    @pytest.fixture(autouse=True)
    def cluster(self, redis_server: RedisServer) -> None:
        self.redis = redis_server

    def make(self, limits: Limits) -> Backend:
        return backend(self.redis, apps=APPS, limits=limits)


def test_a_node_queues_the_leave_of_users_of_a_dead_one_once(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        dead, *living = (backend(redis_server, apps=APPS, node_timeout_s=1) for _ in range(3))
        for node in (dead, *living):
            await node.start(lambda _: None, nobody_asks)
        woken = asyncio.Event()
        for node in living:
            node.webhooks.wake = lambda _: woken.set()
        for user in ("alice", "bob"):
            await dead.presence.join(APP, "s", user, user)
        await dead._shard.close()  # without a goodbye, as after a kill
        await asyncio.wait_for(woken.wait(), 60)
        await eventually(lambda: redis_server.cli("ZCARD", "tambur:0:leases") == "2")
        taken = await living[0].webhooks.take(QUEUE, 100)
        assert sorted((event.user_id, event.is_up) for event in taken.events) == [
            ("alice", False), ("alice", True), ("bob", False), ("bob", True)
        ]  # fmt: skip
        assert (await living[1].webhooks.take(QUEUE, 100)).events == []
        left = await living[1].webhooks.take(LEFT_QUEUE, 100)
        assert sorted(event.user_id for event in left.events) == ["alice", "bob"]
        for node in living:
            await node.close()

    asyncio.run(scenario())


def test_events_are_dropped_after_a_day(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        node = backend(redis_server, apps=APPS)
        await node.start(lambda _: None, nobody_asks)
        await node.presence.join(APP, "s", "alice", "1")
        await node.presence.join(APP, "s", "bob", "2")
        events, due = (f"tambur:0:{kind}:{QUEUE}" for kind in ("events", "due"))
        version, *_ = redis_server.cli("ZRANGE", events, "0", "0").split("\n")
        entry = f"1000000\nup\n{APP.api_key}/{APP.app_id}:s\nalice"
        redis_server.cli("ZADD", events, "1000000", entry)
        redis_server.cli("ZADD", due, "0", "1000000")
        taken = await node.webhooks.take(QUEUE, 100)
        assert taken.dropped == 1
        assert taken.events[0].version == int(version)
        assert taken.waiting == 2
        assert 24 * 3600 < int(redis_server.cli("TTL", events)) <= 25 * 3600
        assert 24 * 3600 < int(redis_server.cli("TTL", due)) <= 25 * 3600
        await node.close()

    asyncio.run(scenario())


def test_versions_stay_above_those_of_a_clock_that_was_ahead(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        node = backend(redis_server, apps=APPS)
        await node.start(lambda _: None, nobody_asks)
        redis_server.cli("SET", "tambur:0:version", "4000000000000000")
        await node.presence.join(APP, "s", "alice", "1")
        taken = await node.webhooks.take(QUEUE, 100)
        assert [event.version for event in taken.events] == [4_000_000_000_000_001]
        assert taken.oldest_s == 0
        await node.close()

    asyncio.run(scenario())
