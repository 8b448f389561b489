"""The Redis broker: what it shares with the other, and what many nodes are for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tambur.protocol.names import Kind
from tambur.server.broker import (
    CLAIM_WINDOW_S,
    Backend,
    BrokerUnavailableError,
    Outcome,
    Publication,
)
from tambur.server.broker.factory import from_url
from tambur.server.broker.redis import scripts
from tambur.server.broker.redis.backend import RedisBackend
from tambur.server.broker.redis.broker import MAX_CLOCK_SKEW_S
from tambur.server.broker.redis.mirror import PresenceMirror
from tambur.server.broker.redis.presence import RedisPresence
from tambur.server.broker.redis.shard import Shard
from tests.support import documentation
from tests.support.broker import (
    APP,
    DELIVERED,
    NONCE_REUSED,
    NOW,
    OTHER_APP,
    REPLAYED,
    RecordingBackend,
    claim,
    nobody_asks,
    public,
)
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

from ..contract import BrokerContract


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


class TestRedisBroker(BrokerContract):
    kept_s = CLAIM_WINDOW_S + MAX_CLOCK_SKEW_S

    @pytest.fixture(autouse=True)
    def cluster(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()

    def make(self, *, max_claims: int = 100) -> Backend:
        return from_url(self.url, max_claims=max_claims, node_timeout_s=30)


def backend(redis: RedisServer, *, max_claims: int = 100, node_timeout_s: float = 30) -> RedisBackend:
    made = from_url(redis.url(), max_claims=max_claims, node_timeout_s=node_timeout_s)
    assert isinstance(made, RedisBackend)
    return made


def shard(node: RecordingBackend) -> Shard:
    """The link of a node to Redis, for tests that break it."""
    assert isinstance(node.backend, RedisBackend)
    return node.backend._shard


def run(redis: RedisServer, count: int, scenario: Callable[..., Awaitable[None]], **options: Any) -> None:
    """Run a scenario of several nodes."""

    async def whole() -> None:
        nodes = [RecordingBackend(backend(redis, **options)) for _ in range(count)]
        for node in nodes:
            await node.backend.start(node.delivered.append, nobody_asks)
        try:
            await scenario(*nodes)
        finally:
            for node in nodes:
                await node.backend.close()

    asyncio.run(whole())


async def ready(node: RecordingBackend) -> None:
    """Wait until a node's broker works again."""
    while True:
        try:
            await node.broker.claimed(claim("any"))
        except BrokerUnavailableError:
            await asyncio.sleep(0.01)
        else:
            return


def test_a_node_subscribes_to_what_its_own_subscribers_listen_to(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        await one.broker.subscribe(APP, "s")
        await two.broker.subscribe(APP, "t")
        await two.broker.subscribe(OTHER_APP, "s")
        two.broker.unsubscribe(APP, "t")
        await two.settle()
        channels = redis_server.cli("PUBSUB", "CHANNELS", "tambur:0:*").split("\n")
        assert [c for c in sorted(channels) if ":node:" not in c] == [
            "tambur:0:stream:key/app:s",
            "tambur:0:stream:other/app:s",
        ]
        assert len(channels) == 4

    run(redis_server, 2, scenario)


def test_a_private_message_goes_to_the_node_that_the_id_names(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        ids = [node.backend.new_subscriber_id() for node in (one, two) for _ in range(100)]
        assert len(set(ids)) == 200
        for subscriber_id in ids:
            parsed = uuid.UUID(subscriber_id)
            assert (str(parsed), parsed.version, parsed.variant) == (subscriber_id, 8, uuid.RFC_4122)
        # Of the bits that are not the node's, only version and variant are always the same.
        numbers = [uuid.UUID(subscriber_id).int for subscriber_id in ids]
        changing = 0
        for number in numbers:
            changing |= number ^ numbers[0]
        assert (changing & (1 << 96) - 1).bit_count() == 90

        publication = Publication(APP, Kind.PRIVATE, ids[150], b"x")
        assert await one.publish(publication, claim("1")) == DELIVERED
        await one.settle()
        await two.settle()
        assert (one.delivered, two.delivered) == ([], [publication])

    run(redis_server, 2, scenario)


def test_claims_and_their_limit_are_the_clusters(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        await two.broker.subscribe(APP, "s")
        assert await one.publish(public("s", "x"), claim("1")) == DELIVERED
        assert await two.publish(public("s", "x"), claim("1")) == REPLAYED
        assert await two.publish(public("s", "y"), claim("1", "other")) == NONCE_REUSED
        assert await two.broker.claimed(claim("1")) is Outcome.REPLAYED
        assert await two.publish(public("s", "y"), claim("2", timestamp=NOW + 1)) == DELIVERED
        with pytest.raises(BrokerUnavailableError, match="max_claims"):
            await one.publish(public("s", "z"), claim("3"))
        await two.settle()
        assert [p.event for p in two.delivered] == [b"x", b"y"]

    run(redis_server, 2, scenario, max_claims=2)


def test_what_was_kept_is_forgotten_in_time(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend) -> None:
        for timestamp in (NOW - CLAIM_WINDOW_S, NOW, NOW + CLAIM_WINDOW_S):
            await node.publish(public("s", "x"), claim("n", timestamp=timestamp), rate=0.5)
        await node.publish(public("s", "x"), claim("n", app=OTHER_APP), rate=0.5)

    run(redis_server, 1, scenario)
    kept_s = CLAIM_WINDOW_S + MAX_CLOCK_SKEW_S
    longest_s = {
        f"tambur:0:claims:{NOW - CLAIM_WINDOW_S}": MAX_CLOCK_SKEW_S + 1,
        "tambur:0:rate:key/app": 3,
        "tambur:0:claims": 2 * kept_s + 1,
    }
    keys = set(redis_server.cli("KEYS", "*").split("\n"))
    assert set(longest_s) <= keys
    for key, seconds in longest_s.items():
        assert 0 < int(redis_server.cli("TTL", key)) <= seconds


def test_the_documentation_lists_all_keys_and_channels(redis_server: RedisServer) -> None:
    text = documentation.text("redis.md")
    documented = [
        re.compile(re.sub("[A-Z_]+", "[^:]+", written))
        for written in re.findall(r"^\| `(tambur:.+?)` \|", text, re.MULTILINE)
    ]
    assert len(documented) == 11
    assert (
        f"{scripts.MAX_RECENT_BYTES // 2**20} MiB of them, until nothing has been published for {scripts.RECENT_S} s"
        in text
    )

    async def scenario(node: RecordingBackend) -> None:
        await node.broker.subscribe(APP, "s")
        await node.publish(public("s", "x"), claim("n"), rate=5)
        await node.presence.join(APP, "s", "alice", "a")
        keys = redis_server.cli("KEYS", "*").split("\n")
        channels = redis_server.cli("PUBSUB", "CHANNELS", "tambur:0:*").split("\n")
        found = keys + channels
        assert all(any(pattern.fullmatch(name) for pattern in documented) for name in found), found
        assert all(any(pattern.fullmatch(name) for name in found) for pattern in documented), found

    run(redis_server, 1, scenario)


def test_nothing_is_left_of_a_stream_that_everybody_left(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        for node, subscriber_id in ((one, "a1"), (two, "a2"), (one, "a3")):
            await node.presence.join(APP, "s", "alice", subscriber_id)
        two.presence.leave(APP, "s", "alice", "a2")
        # The others are left by the end of the broker.

    run(redis_server, 2, scenario)
    keys = set(redis_server.cli("KEYS", "*").split("\n"))
    assert keys == {"tambur:0:leases", "tambur:0:links", "tambur:0:place"}


def test_a_dead_nodes_leavings_are_swept(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend, victim: RecordingBackend) -> None:
        for i in range(3):
            await victim.presence.join(APP, "s", f"user {i}", str(i))
        assert isinstance(victim.presence, RedisPresence)
        victim.presence._mirror = PresenceMirror()  # it dies before it can leave
        await victim.backend.close()
        present = await node.presence.join(APP, "s", "alice", "a")
        assert len(present.user_ids) == 4
        await node.broker.subscribe(APP, "s")
        while len(node.presence_events()) < 3:
            await node.settle()
        assert {event for _, event in node.presence_events()} == {
            f'["msg","s","presence",["user {i}","down"]]'.encode() for i in range(3)
        }

    run(redis_server, 2, scenario, node_timeout_s=1)
    assert redis_server.cli("ZCARD", "tambur:0:leases") == "1"
    assert redis_server.cli("HLEN", "tambur:0:links") == "1"


def test_a_link_that_was_given_up_can_change_nothing_any_more(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend, other: RecordingBackend) -> None:
        await node.presence.join(APP, "s", "alice", "a")
        first, second = shard(node), shard(other)
        assert first.link is not None
        first.link.fail(ConnectionResetError("test"))
        await ready(node)
        keys = first.keys.links, first.node_key, first.keys.present(APP, "s")
        entry = b"key/app:s\nbob\nb"
        late = [
            scripts.LEAVE(first.node, 1, b"key/app:s\nalice\na", first.keys.prefix, keys=keys[:2]),
            scripts.JOIN(first.node, 1, entry, "bob", b"c", b"c", b"", keys=keys),
            scripts.LEASE(first.node, 1, 1, b"c", b"", keys=(keys[0], first.keys.leases)),
            scripts.ENTER(first.node, 1, 1, b"c", b"", keys=(keys[0], first.keys.leases)),
        ]
        for command in late:
            link = second.link
            assert link is not None
            with pytest.raises(BrokerUnavailableError):
                await link.call(*command)
            assert re.match("LINK 1 of this node", str(link.failed.result()))
            await ready(other)
        assert (await other.presence.join(APP, "s", "carol", "c")).user_ids == ("alice", "carol")

    run(redis_server, 2, scenario)


@contextlib.asynccontextmanager
async def two_nodes(
    redis: RedisServer,
) -> AsyncIterator[tuple[RecordingBackend, RecordingBackend, TcpProxy, list[None]]]:
    """Two nodes, a proxy before the Redis of the second, and how often that one was told that it missed something."""
    missed: list[None] = []
    with TcpProxy(redis.port) as link:
        one = RecordingBackend(backend(redis, max_claims=1000))
        two = RecordingBackend(from_url(f"redis://127.0.0.1:{link.port}", max_claims=100, node_timeout_s=30))
        await one.backend.start(one.delivered.append, nobody_asks)
        await two.backend.start(two.delivered.append, nobody_asks, lambda: missed.append(None))
        try:
            yield one, two, link, missed
        finally:
            await one.backend.close()
            await two.backend.close()


@contextlib.asynccontextmanager
async def cut(node: RecordingBackend, link: TcpProxy) -> AsyncIterator[None]:
    """A node has no link, until the end of this, and has found it again."""
    failing = shard(node).link
    assert failing is not None
    link.refuse(True)
    link.drop()
    await failing.failed
    yield
    link.refuse(False)
    await ready(node)


def test_a_node_makes_up_for_what_it_missed_in_order(redis_server: RedisServer) -> None:
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
            assert [p._replace(place=0) for p in two.delivered] == [
                *(public("s", "before"), private, direct, *many, public("s", "after")),
            ]
            places = [p.place for p in two.delivered if p.kind is not Kind.PRIVATE]
            assert (places[0], places[-1]) == (0, 0)
            assert places[1:-1] == sorted(places[1:-1])
            assert 0 < places[1] < places[-2] == place
            # What it has made up for is not made up for again.
            del two.delivered[:]
            async with cut(two, link):
                pass
            await two.settle()
            assert (two.delivered, missed) == ([], [])

    asyncio.run(scenario())


def test_a_node_makes_up_for_the_very_first_message(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as (one, two, link, missed):
            await two.broker.subscribe(APP, "s")
            async with cut(two, link):
                await one.publish(public("s", "first"), claim("first"))
            await two.settle()
            assert [p.event for p in two.delivered] == [b"first"]
            assert missed == []

    asyncio.run(scenario())


def test_a_node_says_if_it_cannot_make_up_for_all(redis_server: RedisServer) -> None:
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
                assert len(missed) == 1
                assert [p.event for p in two.delivered] == ([b"z"] if lost == "all" else [b"y", b"z"])

    asyncio.run(scenario())


def test_a_redis_that_forgot_has_places_above_those_it_gave(redis_server: RedisServer) -> None:
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


def test_what_is_kept_for_others_is_bounded(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: RecordingBackend) -> None:
        for i in range(1200):
            await node.publish(public("s", "x" * 64 * 1024), claim(str(i)))
        kept = int(redis_server.cli("XLEN", "tambur:0:recent"))
        assert 0.9 < kept * 64 * 1024 / scripts.MAX_RECENT_BYTES <= 1.01
        assert 0 < int(redis_server.cli("TTL", "tambur:0:recent")) <= scripts.RECENT_S

    run(redis_server, 1, scenario, max_claims=2000)


def test_messages_that_are_none_of_ours_are_passed_over(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(node: RecordingBackend) -> None:
        await node.broker.subscribe(APP, "s")
        for channel in ("tambur:0:stream:key/app:s", shard(node).node_key.decode()):
            for garbage in ("", "x", "private\nx", "answer x\n", "answer 99999999\n", "direct\n"):
                redis_server.cli("PUBLISH", channel, garbage)
        await node.settle()
        node.delivered.clear()
        await node.publish(public("s", "x"), claim("1"))
        await node.settle()
        assert [p.event for p in node.delivered] == [b"x"]

    with caplog.at_level(logging.ERROR):
        run(redis_server, 1, scenario)
    assert "message from Redis lost channel=tambur:0:stream:key/app:s" in caplog.text
