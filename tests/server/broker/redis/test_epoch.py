"""The epoch over Redis: which positions are still valid when Redis comes back as another process.

A test that sets the process in Redis to another name makes the running one look like a new one. Real restarts
and failovers are in ``tests/system/test_redis_history.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn

import pytest

from tambur.server.broker import BrokerUnavailableError
from tambur.server.broker.redis import recovery as recovery_module
from tambur.server.broker.redis.backend import RedisBackend
from tambur.server.broker.redis.link import Link
from tambur.server.broker.redis.recovery import RedisRecovery
from tests.support.broker import APP, DELIVERED, RecordingBackend, claim, public
from tests.support.redis_nodes import ready, renew_lease, run, shard
from tests.support.redis_server import RedisServer


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_server.cli("FLUSHDB")
    monkeypatch.setattr(recovery_module, "PROOF_WAIT_S", 0.01)


def recovery(node: RecordingBackend) -> RedisRecovery:
    assert isinstance(node.backend, RedisBackend)
    return node.backend.recovery


def become_another_process(redis: RedisServer, *nodes: RecordingBackend) -> None:
    """Let Redis and the nodes know a former process."""
    redis.cli("HSET", "tambur:0:shard", "process", "a former one")
    for node in nodes:
        shard(node).epoch.process = b"a former one"


@contextlib.asynccontextmanager
async def away(node: RecordingBackend) -> AsyncIterator[None]:
    """Cut the link of a node; at the end, wait until the node has linked again."""

    async def refuse(_: Link) -> NoReturn:
        raise ConnectionRefusedError

    link = shard(node).link
    assert link is not None
    shard(node)._open = refuse  # type: ignore[assignment,method-assign]
    link.fail(ConnectionResetError("cut by a test"))
    while shard(node).link is not None:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    yield
    del shard(node)._open
    await ready(node)


async def until_another_epoch(node: RecordingBackend, epoch: bytes) -> None:
    while recovery(node).epoch == epoch:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0.01)
    await ready(node)


async def is_complete(node: RecordingBackend, place: int) -> bool:
    """Whether everything after a place can be replayed."""
    await recovery(node).load(APP, "s", place)
    return recovery(node).since(APP, "s", place) is not None


async def begin(*nodes: RecordingBackend) -> int:
    """Publish a message; return the place of the nodes, which have received it."""
    for node in nodes:
        await node.broker.subscribe(APP, "s")
    await nodes[0].publish(public("s", "x"), claim("x"))
    for node in nodes:
        await node.broker.sync()
    return recovery(nodes[0]).place


def test_all_nodes_know_one_epoch(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        place = await begin(one, two)
        assert recovery(one).epoch == recovery(two).epoch
        assert [await is_complete(node, place) for node in (one, two)] == [True, True]
        epoch = recovery(one).epoch
        async with away(one), away(two):
            pass
        assert recovery(one).epoch == recovery(two).epoch == epoch

    run(redis_server, 2, scenario)


def test_an_epoch_is_proven_once_all_nodes_have_entered_the_new_process(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        place = await begin(one, two)
        epoch = recovery(one).epoch
        async with away(two):
            async with away(one):
                become_another_process(redis_server, one, two)
            assert not await is_complete(one, place)
        await one.broker.sync()  # what the other node announced has arrived
        assert [await is_complete(node, place) for node in (one, two)] == [True, True]
        assert recovery(one).epoch == recovery(two).epoch == epoch
        assert redis_server.cli("EXISTS", "tambur:0:unheard") == "0"

    run(redis_server, 2, scenario)


def test_a_node_that_knows_of_more_than_redis_begins_a_new_epoch(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        place = await begin(one, two)
        before = recovery(one).epoch
        shard(two).epoch.see(place + 1_000_000)  # it has acknowledged a message that Redis lacks
        async with away(two):
            async with away(one):
                become_another_process(redis_server, one, two)
            assert recovery(one).epoch == before
        await until_another_epoch(one, before)  # it hears of it, and enters again
        assert recovery(one).epoch == recovery(two).epoch != before
        assert [await is_complete(node, place) for node in (one, two)] == [False, False]
        place = recovery(one).place
        assert [await is_complete(node, place) for node in (one, two)] == [True, True]

    run(redis_server, 2, scenario)


def test_a_node_that_comes_late_is_heard_after_the_proof(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, late: RecordingBackend) -> None:
        await begin(one, late)
        before = recovery(one).epoch
        shard(late).epoch.see(recovery(one).place + 1_000_000)
        async with away(late):
            async with away(one):
                become_another_process(redis_server, one, late)
                redis_server.cli("ZREM", "tambur:0:leases", shard(late).node)
            assert shard(one).epoch.is_proven
            assert recovery(one).epoch == before
        assert recovery(late).epoch != before

    run(redis_server, 2, scenario)


def test_a_node_that_does_not_come_back_ends_the_epoch(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend) -> None:
        place = await begin(node)
        before = recovery(node).epoch
        redis_server.cli("ZADD", "tambur:0:leases", "1", "deadbeef")
        redis_server.cli("HSET", "tambur:0:links", "deadbeef", "1")
        async with away(node):
            become_another_process(redis_server, node)
        await renew_lease(node)
        assert recovery(node).epoch == before
        assert not await is_complete(node, place)
        redis_server.cli("HSET", "tambur:0:shard", "until", "1")  # the time for a proof is past
        await renew_lease(node)
        await until_another_epoch(node, before)
        assert not await is_complete(node, place)
        assert await is_complete(node, recovery(node).place)

    run(redis_server, 1, scenario)


def test_a_node_that_is_not_heard_is_missed_by_a_second_process_too(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, late: RecordingBackend) -> None:
        place = await begin(one, late)
        before = recovery(one).epoch
        async with away(late):
            late_place = place + 1_000_000  # above what the second process has, and below what the third has
            shard(late).epoch.see(late_place)
            async with away(one):
                become_another_process(redis_server, one, late)
            redis_server.cli("HSET", "tambur:0:shard", "last", str(place + 2_000_000))
            assert not await is_complete(one, place)
            async with away(one):
                redis_server.cli("HSET", "tambur:0:shard", "process", "another one")
                shard(one).epoch.process = b"another one"
                shard(one).epoch.seen = place
            assert not await is_complete(one, place)
            assert recovery(one).epoch == before
        assert recovery(late).epoch != before

    run(redis_server, 2, scenario)


def test_a_node_that_lost_its_link_before_need_not_be_heard(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, lost: RecordingBackend) -> None:
        place = await begin(one, lost)
        before = recovery(one).epoch
        async with away(lost):
            link = ["HGET", "tambur:0:links", shard(lost).node]
            while redis_server.cli(*link) != "0":  # Redis may notice the end later than the node
                await renew_lease(one)
            async with away(one):
                become_another_process(redis_server, one, lost)
            assert await is_complete(one, place)
        assert [await is_complete(node, place) for node in (one, lost)] == [True, True]
        assert recovery(one).epoch == recovery(lost).epoch == before

    run(redis_server, 2, scenario)


def test_a_node_that_was_cut_off_acknowledges_nothing(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend) -> None:
        await begin(node)
        redis_server.cli("HSET", "tambur:0:links", shard(node).node, "0")
        with pytest.raises(BrokerUnavailableError):
            await node.publish(public("s", "y"), claim("y"))
        await ready(node)
        assert await node.publish(public("s", "y"), claim("y")) == DELIVERED

    run(redis_server, 1, scenario)


def test_new_nodes_alone_prove_nothing(redis_server: RedisServer) -> None:
    async def before(node: RecordingBackend) -> None:
        epochs.append(recovery(node).epoch)

    async def after(node: RecordingBackend) -> None:
        epochs.append(recovery(node).epoch)
        assert shard(node).epoch.is_proven

    epochs: list[bytes] = []
    run(redis_server, 1, before)
    run(redis_server, 1, after)  # Redis has not changed
    redis_server.cli("DEL", "tambur:0:leases")
    become_another_process(redis_server)
    run(redis_server, 1, after)
    assert epochs[0] == epochs[1] != epochs[2]


@pytest.fixture
def evicting(redis_server: RedisServer) -> Iterator[None]:
    redis_server.cli("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
    yield
    redis_server.cli("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")


@pytest.mark.usefixtures("evicting")
def test_nothing_is_complete_while_redis_may_evict_messages(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(node: RecordingBackend) -> None:
        place = await begin(node)
        assert not await is_complete(node, place)

    with caplog.at_level(logging.WARNING):
        run(redis_server, 1, scenario)
    assert "set maxmemory-policy to noeviction" in caplog.text


def test_a_redis_that_changes_its_process_unnoticed_is_entered_again(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend) -> None:
        await begin(node)
        link = shard(node).link
        assert link is not None
        become_another_process(redis_server)
        await link.failed  # at the next renewal of the lease
        await ready(node)
        assert shard(node).epoch.is_proven

    run(redis_server, 1, scenario, node_timeout_s=1)
