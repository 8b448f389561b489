"""The Redis broker: the contract of all brokers, and the behaviour of several nodes."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid

import pytest
from redis.asyncio import Connection

from tambur.protocol.names import Kind
from tambur.server import App, Limits
from tambur.server.broker import (
    CLAIM_WINDOW_S,
    Backend,
    BrokerUnavailableError,
    Outcome,
    Publication,
)
from tambur.server.broker.factory import from_url
from tambur.server.broker.redis import scripts
from tambur.server.broker.redis.shard import MAX_CLOCK_SKEW_S
from tambur.server.webhooks.settings import Webhook
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
    public,
)
from tests.support.redis_nodes import end_lease, maintain, ready, run, shard
from tests.support.redis_server import RedisServer

from ..contract import SLOW, BrokerContract


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


def test_a_node_subscribes_to_what_its_own_subscribers_listen_to(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        await one.broker.subscribe(APP, "s")
        await two.broker.subscribe(APP, "t")
        two.broker.unsubscribe(APP, "t")
        await two.broker.subscribe(OTHER_APP, "s")  # confirmed after the unsubscribe
        channels = redis_server.cli("PUBSUB", "CHANNELS", "tambur:0:*").split("\n")
        assert [c for c in sorted(channels) if ":node:" not in c] == [
            "tambur:0:nodes",
            "tambur:0:stream:key/app:s",
            "tambur:0:stream:other/app:s",
        ]
        assert len(channels) == 5

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


def test_a_publish_returns_how_many_nodes_listen(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        await one.broker.subscribe(APP, "s")
        for node, count in ((two, 1), (one, 2)):
            assert await one.publish(public("s", "x"), claim(f"{count} one")) == DELIVERED
            assert one.nodes == count
            await two.broker.subscribe(APP, "s")
            assert await node.publish(public("s", "x"), claim(f"{count} two")) == DELIVERED
            assert node.nodes == 2
        private = Publication(APP, Kind.PRIVATE, two.backend.new_subscriber_id(), b"x")
        await one.publish(private, claim("private"))
        assert one.nodes == 1

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


def test_claims_expire(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend) -> None:
        for timestamp in (NOW - CLAIM_WINDOW_S, NOW, NOW + CLAIM_WINDOW_S):
            await node.publish(public("s", "x"), claim("n", timestamp=timestamp), rate=SLOW)
        await node.publish(public("s", "x"), claim("n", app=OTHER_APP), rate=SLOW)

    run(redis_server, 1, scenario)
    kept_s = CLAIM_WINDOW_S + MAX_CLOCK_SKEW_S
    longest_s = {
        f"tambur:0:claims:key/app:{NOW - CLAIM_WINDOW_S}": MAX_CLOCK_SKEW_S + 1,
        "tambur:0:rate:key/app": round(1 / SLOW) + 1,
        "tambur:0:claims:key/app": 2 * kept_s + 1,
        "tambur:0:claims:other/app": 2 * kept_s + 1,
    }
    keys = set(redis_server.cli("KEYS", "*").split("\n"))
    assert set(longest_s) <= keys
    for key, seconds in longest_s.items():
        assert 0 < int(redis_server.cli("TTL", key)) <= seconds


def test_the_documentation_lists_all_keys_and_channels(redis_server: RedisServer) -> None:
    text = documentation.text("redis.md")
    documented = [
        re.compile(re.sub("[A-Z_]+", ".+" if written.endswith("LOG") else "[^:]+", written), re.DOTALL)
        for written in re.findall(r"^\| `(tambur:.+?)` \|", text, re.MULTILINE)
    ]
    assert len(documented) == 24

    async def scenario(node: RecordingBackend) -> None:
        await node.broker.subscribe(APP, "s")
        await node.publish(public("s", "x"), claim("n"), rate=SLOW)
        await node.broker.send(Publication(APP, Kind.DIRECT, "s", b"x", "bob"))
        for user in ("alice", "bob"):  # one event more than the limit
            await node.presence.join(APP, "s", user, user)
        assert node.backend.recovery is not None
        await node.backend.recovery.resume(APP, "12345678-28d8-4fd4-b862-f67e9b6dfd8f", 1)
        await node.backend.revocations.revoke(APP, ["id"], "carol")
        redis_server.cli("ZADD", "tambur:0:stopped", "9999999999999", "stopped")
        redis_server.cli("SADD", "tambur:0:unheard", "while an epoch is not proven")
        keys = redis_server.cli("KEYS", "*").replace("s\nbob", "s bob").split("\n")
        channels = redis_server.cli("PUBSUB", "CHANNELS", "tambur:0:*").split("\n")
        found = keys + channels
        assert all(any(pattern.fullmatch(name) for pattern in documented) for name in found), found
        assert all(any(pattern.fullmatch(name) for name in found) for pattern in documented), found

    webhook = Webhook("https://h/", "whsec_" + "A" * 32)
    apps = (App(*APP, ("secret",), webhooks=(webhook,)),)
    run(redis_server, 1, scenario, apps=apps, limits=Limits(max_webhook_events=1))


def test_nothing_is_left_of_a_stream_that_everybody_left(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        for node, subscriber_id in ((one, "a1"), (two, "a2"), (one, "a3")):
            await node.presence.join(APP, "s", "alice", subscriber_id)
        two.presence.leave(APP, "s", "alice", "a2")
        # The others are left by the end of the broker.

    run(redis_server, 2, scenario)
    keys = set(redis_server.cli("KEYS", "*").split("\n"))
    assert keys == {"tambur:0:shard"}


def test_a_dead_nodes_leavings_are_swept(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend, victim: RecordingBackend) -> None:
        for i in range(3):
            await victim.presence.join(APP, "s", f"user {i}", str(i))
        await shard(victim).close()  # it dies before it can leave
        await maintain(node)
        present = await node.presence.join(APP, "s", "alice", "a")
        assert len(present.user_ids) == 4
        await node.broker.subscribe(APP, "s")
        end_lease(redis_server, victim)
        await maintain(node)
        await node.settle()
        assert {event for _, event in node.presence_events()} == {
            f'["msg","s","presence",["user {i}","down"]]'.encode() for i in range(3)
        }

    run(redis_server, 2, scenario)
    assert redis_server.cli("EXISTS", "tambur:0:leases") == "0"
    assert redis_server.cli("EXISTS", "tambur:0:links") == "0"


def test_a_node_that_ends_while_its_link_fails_leaves_no_connection_open(redis_server: RedisServer) -> None:
    async def scenario(*nodes: RecordingBackend) -> None:
        for turns, node in enumerate(nodes):
            link = shard(node).link
            assert link is not None
            link.fail(ConnectionResetError("test"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await node.backend.close()
            for connection in link._connections:
                assert isinstance(connection, Connection)
                assert not connection.is_connected

    run(redis_server, 12, scenario)


def test_a_closed_link_can_no_longer_change_anything(redis_server: RedisServer) -> None:
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
            *(
                script(
                    *(first.node, 1, 1, b"c", b"", first.keys.prefix, "new", "process", "epoch", 0, 1),
                    keys=(keys[0], first.keys.leases),
                )
                for script in (scripts.LEASE, scripts.ENTER)
            ),
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


def test_unknown_messages_are_ignored(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
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
