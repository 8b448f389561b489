"""Batches over Redis: how far they came, and what another node does then."""

from __future__ import annotations

import asyncio

import pytest

from tambur.protocol.names import Kind
from tambur.server.broker import BrokerUnavailableError, Outcome, Publication
from tests.support.broker import APP, RecordingBackend, claim, public
from tests.support.redis_nodes import ready, run, shard
from tests.support.redis_server import RedisServer

BATCH = [public("s", str(i)) for i in range(1000)]


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


async def until_some_arrived(node: RecordingBackend) -> None:
    while not node.delivered:  # noqa: ASYNC110 - an event would be late
        await asyncio.sleep(0)


def test_another_node_delivers_the_rest_of_a_batch_whose_node_is_gone(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, other: RecordingBackend) -> None:
        await other.broker.subscribe(APP, "s")
        delivering = asyncio.ensure_future(one.publish_batch(BATCH, claim("n")))
        await until_some_arrived(other)
        delivering.cancel()
        await asyncio.wait([delivering])
        assert delivering.cancelled()
        assert await other.publish_batch(BATCH, claim("n")) is Outcome.DELIVERED
        await other.settle()
        assert other.delivered == BATCH
        assert await one.publish_batch(BATCH, claim("n")) is Outcome.REPLAYED

    run(redis_server, 2, scenario)


def test_a_batch_whose_link_broke_is_continued_where_it_ended(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, other: RecordingBackend) -> None:
        await other.broker.subscribe(APP, "s")
        delivering = asyncio.ensure_future(one.publish_batch(BATCH, claim("n")))
        await until_some_arrived(other)
        link = shard(one).link
        assert link is not None
        await link.close()
        with pytest.raises(BrokerUnavailableError):
            await delivering
        await ready(one)
        assert await one.publish_batch(BATCH, claim("n")) is Outcome.DELIVERED
        await other.settle()
        assert other.delivered == BATCH

    run(redis_server, 2, scenario)


def test_two_nodes_that_receive_the_same_batch_deliver_it_once_and_in_order(
    redis_server: RedisServer,
) -> None:
    async def scenario(one: RecordingBackend, other: RecordingBackend) -> None:
        await other.broker.subscribe(APP, "s")
        outcomes = await asyncio.gather(*(n.publish_batch(BATCH, claim("n")) for n in (one, other)))
        assert set(outcomes) <= {Outcome.DELIVERED, Outcome.REPLAYED}
        await other.settle()
        assert other.delivered == BATCH

    run(redis_server, 2, scenario)


def test_a_batch_takes_one_claim(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend) -> None:
        for nonce in "ab":
            assert await node.publish_batch(BATCH[:120], claim(nonce)) is Outcome.DELIVERED
        with pytest.raises(BrokerUnavailableError, match="max_claims"):
            await node.publish_batch(BATCH, claim("c"))

    run(redis_server, 1, scenario, max_claims=2)


def test_private_messages_and_excluded_ids_reach_the_other_node(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, other: RecordingBackend) -> None:
        await other.broker.subscribe(APP, "s")
        batch = [
            Publication(APP, Kind.AUTH, "s", b"x", excluded="an-id"),
            Publication(APP, Kind.PRIVATE, other.backend.new_subscriber_id(), b"y", excluded="an-id"),
            public("s", "z"),
        ]
        await one.publish_batch(batch, claim("n"))
        await other.settle()
        assert other.delivered == batch

    run(redis_server, 2, scenario)


def test_nothing_is_delivered_twice_after_redis_lost_the_claim(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, other: RecordingBackend) -> None:
        await other.broker.subscribe(APP, "s")
        delivering = asyncio.ensure_future(one.publish_batch(BATCH, claim("n")))
        await until_some_arrived(other)
        redis_server.cli("DEL", *redis_server.cli("KEYS", "*claims*").split())
        assert await delivering is Outcome.DELIVERED
        await other.settle()
        assert other.delivered == BATCH

    run(redis_server, 2, scenario)
