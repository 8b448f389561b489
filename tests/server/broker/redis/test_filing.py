"""Kept messages in Redis after the configuration of an app's history has changed."""

from __future__ import annotations

import pytest

from tambur.server import App, Limits
from tambur.server.broker.redis.backend import RedisBackend
from tambur.server.config import KeptStreams
from tests.support.broker import APP, NOW, RecordingBackend, claim, public
from tests.support.redis_nodes import run, shard
from tests.support.redis_server import RedisServer

SOON = Limits(history_ttl_s=0.001)
ROOMS = KeptStreams("room-*", messages=10, ttl_s=1000)


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


def start(
    redis: RedisServer, *history: KeptStreams, limits: Limits | None = None, room: str = "", other: str = ""
) -> None:
    """Start a node, publish to two streams, and drop what has expired."""

    async def scenario(node: RecordingBackend) -> None:
        assert isinstance(node.backend, RedisBackend)
        for stream, text in (("room-1", room), ("other", other)):
            if text:
                await node.publish(public(stream, text), claim(text), now=NOW)
        await node.backend.recovery.maintain(shard(node).ready_link())

    run(redis, 1, scenario, apps=(App(*APP, ("secret",), history=history),), limits=limits)


def bytes_of(redis: RedisServer, *streams: str) -> int:
    """The bytes that some logs count in their budget."""
    count = 0
    for stream in streams:
        for number in range(int(redis.cli("LLEN", f"tambur:0:log:key/app:{stream}"))):
            count += 16 + len(redis.cli("LINDEX", f"tambur:0:log:key/app:{stream}", str(number)))
        count += 400 + 2 * len(stream)
    return count


def test_a_new_entry_counts_for_a_stream_that_has_messages(redis_server: RedisServer) -> None:
    start(redis_server, room="before", other="x")
    start(redis_server, ROOMS, limits=SOON, room="after")
    assert redis_server.cli("LLEN", "tambur:0:log:key/app:room-1") == "2"
    assert redis_server.cli("LLEN", "tambur:0:log:key/app:other") == "0"
    assert redis_server.cli("ZRANGE", "tambur:0:kept:key/app:room-*", "0", "-1") == "room-1"
    assert redis_server.cli("HGET", "tambur:0:bytes", "key/app:room-*") == str(
        bytes_of(redis_server, "room-1")
    )
    assert redis_server.cli("KEYS", "tambur:0:kept:key/app") == ""


def test_the_messages_of_an_entry_that_was_removed_expire(redis_server: RedisServer) -> None:
    start(redis_server, ROOMS, room="before")
    start(redis_server, other="x")
    assert redis_server.cli("HGET", "tambur:0:bytes", "key/app") == str(
        bytes_of(redis_server, "room-1", "other")
    )
    assert redis_server.cli("HEXISTS", "tambur:0:bytes", "key/app:room-*") == "0"
    start(redis_server, limits=SOON)
    assert redis_server.cli("KEYS", "tambur:0:log:*") == ""
    assert redis_server.cli("KEYS", "tambur:0:kept:*") == ""


def test_entries_in_another_order_and_an_app_with_a_similar_name(redis_server: RedisServer) -> None:
    everything = KeptStreams("*", messages=10, ttl_s=1000)
    start(redis_server, everything, ROOMS, room="before", other="x")
    redis_server.cli("HSET", "tambur:0:bytes", "key/apple:*", "5")
    redis_server.cli("ZADD", "tambur:0:kept:key/apple:*", "1", "room-1")
    start(redis_server, ROOMS, everything)
    assert redis_server.cli("ZRANGE", "tambur:0:kept:key/app:room-*", "0", "-1") == "room-1"
    assert redis_server.cli("ZRANGE", "tambur:0:kept:key/app:*", "0", "-1") == "other"
    assert redis_server.cli("ZRANGE", "tambur:0:kept:key/apple:*", "0", "-1") == "room-1"
    assert redis_server.cli("HGET", "tambur:0:bytes", "key/app:*") == str(bytes_of(redis_server, "other"))


def test_a_log_that_was_removed_by_hand_is_forgotten(redis_server: RedisServer) -> None:
    start(redis_server, ROOMS, room="before")
    last = redis_server.cli("HGET", "tambur:0:shard", "last")
    redis_server.cli("DEL", "tambur:0:log:key/app:room-1")
    start(redis_server)
    assert redis_server.cli("KEYS", "tambur:0:kept:*") == ""
    floor = redis_server.cli("HGET", "tambur:0:floors:key/app", "room-1").split()[0]
    assert int(floor) >= int(last), "it may have held anything"


def test_bytes_that_nodes_of_another_configuration_counted_are_forgotten(redis_server: RedisServer) -> None:
    start(redis_server, ROOMS, other="x")
    redis_server.cli("HINCRBY", "tambur:0:bytes", "key/app", "-500")
    redis_server.cli("HINCRBY", "tambur:0:bytes", "key/app:removed-*", "500")
    start(redis_server, ROOMS, limits=SOON)
    assert redis_server.cli("EXISTS", "tambur:0:bytes") == "0"
    start(redis_server, ROOMS, other="y")
    assert redis_server.cli("HGET", "tambur:0:bytes", "key/app") == str(bytes_of(redis_server, "other"))
