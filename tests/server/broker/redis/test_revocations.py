"""Disconnects that Redis remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tambur.server import App
from tambur.server.broker import AppKey
from tambur.server.broker.redis import revocations
from tambur.server.broker.redis.backend import RedisBackend
from tests.support.broker import APP, RecordingBackend
from tests.support.redis_nodes import run, shard
from tests.support.redis_server import RedisServer


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


def test_a_disconnect_while_a_node_reads_the_others_hides_none(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "NAMES_AT_ONCE", 2)
    read: dict[str, int] = {}

    async def revoked(
        _: AppKey, subscriber_ids: Mapping[str, int], users: Mapping[str, int]
    ) -> tuple[dict[str, int], dict[str, int]]:
        assert subscriber_ids == {}
        read.update(users)
        return {}, {}

    async def scenario(node: RecordingBackend) -> None:
        backend = node.backend
        assert isinstance(backend, RedisBackend)
        link = shard(node).ready_link()
        key, now_ms = shard(node).keys.revoked(APP)[1], backend.revocations.now_ms()
        for number, user in enumerate(("alice", "bob", "carol", "dave", "erin")):
            await link.call("ZADD", key, now_ms + number, user)

        class Interrupted:
            async def call(self, *command: Any) -> Any:
                answer = await link.call(*command)
                if command[1] == key:
                    await link.call("ZADD", key, now_ms + 10, "alice")  # disconnected again
                return answer

        backend.revocations.revoked = revoked
        interrupted: Any = Interrupted()
        await backend.revocations.catch_up(interrupted, in_doubt=False)
        others = {user: at_ms - now_ms for user, at_ms in read.items() if user != "alice"}
        assert list(others.items()) == [("bob", 1), ("carol", 2), ("dave", 3), ("erin", 4)]

    run(redis_server, 1, scenario, apps=(App(*APP, ("secret",)),))


def test_a_later_disconnect_stands_while_a_node_tells_redis_of_an_earlier_one(
    redis_server: RedisServer,
) -> None:
    async def scenario(node: RecordingBackend) -> None:
        backend = node.backend
        assert isinstance(backend, RedisBackend)
        link = shard(node).ready_link()
        key, now_ms = shard(node).keys.revoked(APP)[1], backend.revocations.now_ms()

        async def revoked(*_: object) -> tuple[dict[str, int], dict[str, int]]:
            await link.call("ZADD", key, now_ms, "alice")  # by another node
            return {}, {"alice": now_ms - 1000, "bob": now_ms - 1000}

        backend.revocations.revoked = revoked
        await backend.revocations.catch_up(link, in_doubt=False)
        assert await link.call("ZRANGE", key, 0, -1, "WITHSCORES") == [
            *(b"bob", b"%d" % (now_ms - 1000)),
            *(b"alice", b"%d" % now_ms),
        ]

    run(redis_server, 1, scenario, apps=(App(*APP, ("secret",)),))
