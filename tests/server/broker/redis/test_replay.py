"""Publications during a lost link to Redis: the node delivers all of them late, or says that it cannot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tambur.protocol.names import Kind
from tambur.server.broker import AppKey, Publication
from tambur.server.broker.factory import from_url
from tambur.server.broker.redis import scripts
from tambur.server.broker.redis.backend import RedisBackend
from tests.support.broker import APP, NOW, OTHER_APP, REPLAYED, RecordingBackend, claim, nobody_asks, public
from tests.support.redis_nodes import backend, ready, run, shard
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


@contextlib.asynccontextmanager
async def two_nodes(
    redis: RedisServer,
) -> AsyncIterator[tuple[RecordingBackend, RecordingBackend, TcpProxy, list[bool]]]:
    """Two nodes, the proxy between the second and Redis, and for each loss whether it was of direct messages only."""
    missed: list[bool] = []
    with TcpProxy(redis.port) as link:
        one = RecordingBackend(backend(redis, max_claims=1000))
        two = RecordingBackend(from_url(f"redis://127.0.0.1:{link.port}", max_claims=100, node_timeout_s=30))
        await one.backend.start(one.delivered.append, nobody_asks)
        await two.backend.start(two.delivered.append, nobody_asks, missed.append)
        try:
            yield one, two, link, missed
        finally:
            await one.backend.close()
            await two.backend.close()


@contextlib.asynccontextmanager
async def cut(node: RecordingBackend, link: TcpProxy) -> AsyncIterator[None]:
    """Cut the link of a node; at the end, wait until the node has linked again."""
    failing = shard(node).link
    assert failing is not None
    link.refuse(True)
    link.drop()
    await failing.failed
    yield
    link.refuse(False)
    await ready(node)


def test_a_node_delivers_late_what_it_missed_in_order(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            private = Publication(APP, Kind.PRIVATE, two.backend.new_subscriber_id(), b"private")
            direct = Publication(APP, Kind.DIRECT, "s", b"direct", "bob")
            many = [public("s", str(i)) for i in range(250)]
            await two.broker.subscribe(APP, "s")
            await one.publish(public("s", "before"), claim("before"))
            await two.settle()
            async with cut(two, link):
                await one.publish(public("t", "of no interest"), claim("t"))
                await one.publish(private, claim("private"))
                await one.broker.send(direct)
                for i, publication in enumerate(many):
                    await one.publish(publication, claim(str(i)), now=NOW)
                assert await one.publish(many[0], claim("0")) == REPLAYED
                place = await one.broker.place()
            await one.publish(public("s", "after"), claim("after"))
            await two.settle()
            assert [p._replace(place=0, is_late=False) for p in two.delivered] == [
                *(public("s", "before"), private, direct, *many, public("s", "after")),
            ]
            places = [p.place for p in two.delivered if p.kind is not Kind.PRIVATE]
            assert (places[0], places[-1]) == (0, 0)
            assert places[1:-1] == sorted(places[1:-1])
            assert 0 < places[1] < places[-2] == place
            # Replayed messages are not replayed again.
            del two.delivered[:]
            async with cut(two, link):
                pass
            await two.settle()
            assert (two.delivered, missed) == ([], [])

    asyncio.run(scenario())


def test_a_node_delivers_even_the_first_message_late(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            await two.broker.subscribe(APP, "s")
            async with cut(two, link):
                await one.publish(public("s", "first"), claim("first"))
            await two.settle()
            assert [p.event for p in two.delivered] == [b"first"]
            assert missed == []

    asyncio.run(scenario())


def test_a_node_says_if_messages_are_lost(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            await two.broker.subscribe(APP, "s")
            for lost in ("all", "the first"):
                await one.publish(public("s", "before"), claim(f"before {lost}"))
                await two.settle()
                del two.delivered[:], missed[:]
                async with cut(two, link):
                    await one.publish(public("s", "x"), claim(f"x {lost}"))
                    redis_server.cli("DEL", "tambur:0:recent")
                    if lost == "the first":
                        await one.publish(public("s", "y"), claim(f"y {lost}"))
                await one.publish(public("s", "z"), claim(f"z {lost}"))
                await two.settle()
                assert missed == [False]
                assert [p.event for p in two.delivered] == ([b"z"] if lost == "all" else [b"y", b"z"])

    asyncio.run(scenario())


def test_a_redis_that_lost_its_data_gives_higher_places(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            await two.broker.subscribe(APP, "s")
            await one.publish(public("s", "before"), claim("before"))
            place = await one.broker.place()
            await two.settle()
            async with cut(two, link):
                redis_server.cli("FLUSHDB")
                await one.publish(public("s", "after"), claim("after"))
                assert await one.broker.place() > place
            await two.settle()
            assert [p.event for p in two.delivered] == [b"before", b"after"]
            # There is no saying what it forgot, but that is no reason to close everybody.
            assert missed == []

    asyncio.run(scenario())


def test_recent_messages_are_bounded(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: RecordingBackend) -> None:
        for i in range(1200):
            await node.publish(public("s", "x" * 64 * 1024), claim(str(i)))
        kept = int(redis_server.cli("XLEN", "tambur:0:recent"))
        assert 0.9 < kept * 64 * 1024 / scripts.MAX_RECENT_BYTES <= 1.01
        assert 0 < int(redis_server.cli("TTL", "tambur:0:recent")) <= scripts.RECENT_S

    run(redis_server, 1, scenario, max_claims=2000)


def direct(stream: str, event: bytes, app: AppKey = APP) -> Publication:
    return Publication(app, Kind.DIRECT, stream, event, "bob")


LARGE = b"x" * 64 * 1024


def test_direct_messages_push_no_other_messages_out(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            await two.broker.subscribe(APP, "s")
            await one.publish(public("s", "before"), claim("before"))
            await two.settle()
            async with cut(two, link):
                await one.publish(public("s", "first"), claim("first"))
                # More than Redis keeps of all messages, to a stream without subscribers.
                for _ in range(scripts.MAX_RECENT_BYTES // len(LARGE) + 10):
                    await one.broker.send(direct("t", LARGE, OTHER_APP))
                kept = int(redis_server.cli("XLEN", "tambur:0:direct"))
                assert 0.9 < kept * len(LARGE) / scripts.MAX_DIRECT_BYTES <= 1
                assert 0 < int(redis_server.cli("TTL", "tambur:0:direct")) <= scripts.RECENT_S
                await one.broker.send(direct("s", b"small"))
                await one.publish(public("s", "last"), claim("last"))
            await two.settle()
            assert [p.event for p in two.delivered] == [b"before", b"first", b"small", b"last"]
            assert missed == [True]

    asyncio.run(scenario())


def test_a_node_distinguishes_lost_direct_messages_from_others(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            await two.broker.subscribe(APP, "s")
            for lost, expected in (("direct", True), ("recent", False)):
                async with cut(two, link):
                    await one.broker.send(direct("s", b"direct"))
                    await one.publish(public("s", "public"), claim(f"public {lost}"))
                    redis_server.cli("DEL", f"tambur:0:{lost}")
                await two.settle()
                kept = b"public" if lost == "direct" else b"direct"
                assert [p.event for p in two.delivered] == [kept]
                assert missed == [expected]
                del two.delivered[:], missed[:]

    asyncio.run(scenario())


def test_a_gap_is_reported_even_if_the_link_fails_after_it(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            await two.broker.subscribe(APP, "s")
            assert isinstance(two.backend, RedisBackend)
            take, taken = two.backend.broker._recent._take, asyncio.Event()

            def take_one_and_fail(channel: bytes, data: bytes, place: int) -> None:
                take(channel, data, place)
                if not taken.is_set():
                    taken.set()
                    link.drop()

            async with cut(two, link):
                await one.publish(public("s", "lost"), claim("lost"))
                redis_server.cli("DEL", "tambur:0:recent")
                for i in range(250):
                    await one.publish(public("s", str(i)), claim(str(i)))
                two.backend.broker._recent._take = take_one_and_fail
            await two.settle()
            assert [p.event.decode() for p in two.delivered] == [str(i) for i in range(250)]
            assert missed == [False]

    asyncio.run(scenario())
