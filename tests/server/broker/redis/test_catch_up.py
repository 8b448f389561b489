"""Publications during a lost link to Redis: the node delivers all of them late, or says that it cannot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tambur.protocol.messages import encode_message
from tambur.protocol.names import Kind
from tambur.server import App, Limits
from tambur.server.broker import (
    AppKey,
    BrokerUnavailableError,
    Logs,
    Publication,
    direct_log,
    private_log,
)
from tambur.server.broker.factory import from_url
from tambur.server.broker.redis.backend import RedisBackend
from tambur.server.broker.redis.link import Link
from tambur.server.config import KeptStreams
from tambur.server.extended_hub import ExtendedHub
from tests.support.broker import (
    APP,
    NOW,
    OTHER_APP,
    REPLAYED,
    RecordingBackend,
    claim,
    eventually,
    nobody_asks,
    public,
)
from tests.support.node import LocalClient, ask, messages, settle
from tests.support.redis_nodes import ready, shard
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

LIMITS = Limits(history_messages=300, max_history_bytes=4 * 1024 * 1024)


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


class Two:
    """Two nodes, and what the second one, whose link is cut, reports.

    Attributes:
        read: the logs that its connections read, beside those of the streams.
        missed: the logs that may have lost messages; ``None`` for all of them.
    """

    def __init__(self, redis: RedisServer, link: TcpProxy) -> None:
        apps = [App(*APP, ("secret",), history=(KeptStreams("room-*", messages=2),))]

        def make(port: int) -> RecordingBackend:
            url = f"redis://127.0.0.1:{port}"
            return RecordingBackend(
                from_url(url, max_claims=1000, node_timeout_s=30, apps=apps, limits=LIMITS)
            )

        self.link = link
        self.one, self.two = make(redis.port), make(link.port)
        self.read: list[tuple[AppKey, str]] = []
        self.missed: list[set[tuple[AppKey, str]] | None] = []
        self.moved: list[str] = []

    async def start(self) -> None:
        await self.one.backend.start(self.one.delivered.append, nobody_asks)
        await self.two.backend.start(
            self.two.delivered.append, nobody_asks, self._miss, self._move, lambda: self.read
        )

    def _miss(self, logs: Logs | None) -> None:
        self.missed.append(None if logs is None else {(app, log) for app, log in logs})

    def _move(self, _: AppKey, subscriber_id: str) -> None:
        self.moved.append(subscriber_id)

    @property
    def events(self) -> list[bytes]:
        return [publication.event for publication in self.two.delivered]

    @contextlib.asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """Cut the link of the second node; at the end, wait until the node has linked again."""
        failing = shard(self.two).link
        assert failing is not None
        self.link.refuse(True)
        self.link.drop()
        await failing.failed
        yield
        self.link.refuse(False)
        await ready(self.two)


@contextlib.asynccontextmanager
async def two_nodes(redis: RedisServer) -> AsyncIterator[Two]:
    with TcpProxy(redis.port) as link:
        both = Two(redis, link)
        await both.start()
        try:
            yield both
        finally:
            await both.one.backend.close()
            await both.two.backend.close()


def direct(stream: str, text: str, app: AppKey = APP) -> Publication:
    return Publication(app, Kind.DIRECT, stream, text.encode(), "bob")


def test_a_node_delivers_late_what_it_missed_in_order(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            one, two = both.one, both.two
            private = Publication(APP, Kind.PRIVATE, two.backend.new_subscriber_id(), b"private")
            both.read = [(APP, private_log(private.name)), (APP, direct_log("s", "bob"))]
            many = [public("s", str(i))._replace(excluded="another") for i in range(250)]
            await two.broker.subscribe(APP, "s")
            await one.publish(public("s", "before"), claim("before"))
            await two.settle()
            async with both.cut():
                await one.publish(public("t", "of no interest"), claim("t"))
                await one.publish(private, claim("private"))
                await one.broker.send(direct("s", "direct"))
                for i, publication in enumerate(many):
                    await one.publish(publication, claim(str(i)), now=NOW)
                assert await one.publish(many[0], claim("0")) == REPLAYED
            await one.publish(public("s", "after"), claim("after"))
            await two.settle()
            assert [p._replace(place=0) for p in two.delivered] == [
                *(public("s", "before"), private, direct("s", "direct"), *many, public("s", "after")),
            ]
            places = [p.place for p in two.delivered]
            assert places == sorted(set(places))
            assert places[0] > 0
            # Replayed messages are not replayed again.
            del two.delivered[:]
            async with both.cut():
                pass
            await two.settle()
            assert (two.delivered, both.missed) == ([], [])

    asyncio.run(scenario())


def test_a_node_delivers_even_the_first_message_late(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            await both.two.broker.subscribe(APP, "s")
            async with both.cut():
                await both.one.publish(public("s", "first"), claim("first"))
            await both.two.settle()
            assert (both.events, both.missed) == ([b"first"], [])

    asyncio.run(scenario())


def test_a_node_names_the_logs_that_lost_messages_and_delivers_the_others(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            one, two = both.one, both.two
            both.read = [(APP, direct_log("s", "bob"))]
            for stream in ("s", "room-1", "room-2"):
                await two.broker.subscribe(APP, stream)
            async with both.cut():
                await one.publish(public("s", "s"), claim("s"))
                await one.publish(public("room-2", "2"), claim("2"))
                for i in range(3):  # of a room, two are kept
                    await one.publish(public("room-1", str(i)), claim(f"room {i}"))
            await two.settle()
            assert both.missed == [{(APP, "room-1")}]
            assert both.events == [b"s", b"2"]
            # From there on, the node has everything again.
            await one.publish(public("room-1", "after"), claim("after"))
            await two.settle()
            assert both.events == [b"s", b"2", b"after"]

    asyncio.run(scenario())


def test_direct_messages_push_no_other_messages_out(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            one, two = both.one, both.two
            both.read = [(APP, direct_log("s", "bob"))]
            await two.broker.subscribe(APP, "s")
            text = "x" * 64 * 1024
            async with both.cut():
                await one.publish(public("s", "first"), claim("first"))
                await one.broker.send(direct("s", "lost"))
                for _ in range(LIMITS.max_history_bytes // len(text) + 10):
                    await one.broker.send(direct("t", text))
                await one.publish(public("s", "last"), claim("last"))
                bytes_ = int(redis_server.cli("HGET", "tambur:0:bytes", "key/app/direct"))
                kept = int(redis_server.cli("LLEN", "tambur:0:log:key/app:t\nbob"))
            assert kept * len(text) < bytes_ <= LIMITS.max_history_bytes / 8 < (kept + 2) * len(text)
            await two.settle()
            assert both.events == [b"first", b"last"]
            assert both.missed == [{(APP, direct_log("s", "bob"))}]

    asyncio.run(scenario())


def test_a_node_that_fails_while_it_catches_up_goes_on_from_there(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            one, two = both.one, both.two
            streams = [f"s{i}" for i in range(250)]  # too many for one read
            for stream in streams:
                await two.broker.subscribe(APP, stream)
            delivered = two.delivered.append
            drops = iter([True])

            def deliver_and_fail(publication: Publication) -> None:
                delivered(publication)
                if next(drops, False):
                    both.link.drop()

            async with both.cut():
                two.broker.deliver = deliver_and_fail  # type: ignore[attr-defined]
                for stream in streams:
                    await one.publish(public(stream, stream), claim(stream))
            await one.publish(public("s0", "last"), claim("last"))
            await two.settle()
            assert sorted(both.events) == sorted([*(stream.encode() for stream in streams), b"last"])
            assert next(drops, None) is None
            assert both.missed == []

    asyncio.run(scenario())


def test_a_redis_that_lost_its_data_begins_a_new_epoch(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            one, two = both.one, both.two
            await two.broker.subscribe(APP, "s")
            await one.publish(public("s", "before"), claim("before"))
            await two.settle()
            async with both.cut():
                redis_server.cli("FLUSHDB")
                with pytest.raises(BrokerUnavailableError):  # it must enter again before
                    await one.publish(public("s", "lost"), claim("lost"), now=NOW)
                await ready(one)
                await one.publish(public("s", "lost"), claim("lost"), now=NOW)
            await ready(one)  # it learns of the new epoch, and links again
            await one.publish(public("s", "after"), claim("after"), now=NOW)
            await two.settle()
            assert both.events == [b"before", b"after"]
            assert both.missed == [None]
            assert two.delivered[1].place > two.delivered[0].place

    asyncio.run(scenario())


def test_other_apps_and_streams_keep_their_own_messages(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            await both.two.broker.subscribe(APP, "s")
            await both.two.broker.subscribe(OTHER_APP, "s")
            async with both.cut():
                await both.one.publish(public("s", "theirs", OTHER_APP), claim("1", app=OTHER_APP))
                await both.one.publish(public("s", "ours"), claim("1"))
            await both.two.settle()
            assert [(p.app, p.event) for p in both.two.delivered] == [(OTHER_APP, b"theirs"), (APP, b"ours")]

    asyncio.run(scenario())


def test_nothing_is_delivered_twice_if_the_next_link_fails_at_the_end_of_catching_up(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            assert isinstance(both.two.backend, RedisBackend)
            recovery = both.two.backend.recovery
            mark, links = recovery.mark, []

            async def fail_once(link: Link) -> int:
                links.append(link)
                if len(links) == 1:
                    both.link.drop()
                return await mark(link)

            await both.two.broker.subscribe(APP, "s")
            monkeypatch.setattr(recovery, "mark", fail_once)
            async with both.cut():
                await both.one.publish(public("s", "missed"), claim("missed"))
            await both.one.publish(public("s", "after"), claim("after"))
            await both.two.settle()
            assert both.events == [b"missed", b"after"]
            assert len(links) == 2
            assert not both.missed

    asyncio.run(scenario())


def test_a_replay_that_ends_while_its_node_catches_up_is_answered_with_a_position_after_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            assert isinstance(both.two.backend, RedisBackend)
            recovery = both.two.backend.recovery
            mark = recovery.mark
            hub = ExtendedHub(both.two.backend, coalesce_window_s=0)
            both.two.broker.deliver = hub.deliver  # type: ignore[attr-defined]
            first, slow, third = (LocalClient(hub, both.two.backend.new_subscriber_id()) for _ in range(3))
            for client in (first, slow, third):
                await ask(client, "hello", {})
            before = (await ask(first, "subscribe", "s"))["position"]

            async def publish(text: str) -> None:
                event = encode_message(Kind.PUBLIC, "s", text)
                await both.one.publish(Publication(APP, Kind.PUBLIC, "s", event), claim(text))

            async def read_all_before(link: Link) -> int:
                slow.seen.unsent_bytes = 0
                await eventually(lambda: len(slow.seen.acks) > 1)
                return await mark(link)

            await publish("early")
            slow.seen.unsent_bytes = 1_000_000
            slow.command("subscribe", "s", {"since": before})
            await ask(first, "subscribe", "t")  # Redis answers this later
            await settle()  # the replay waits for its reader
            monkeypatch.setattr(recovery, "mark", read_all_before)
            async with both.cut():
                await publish("missed")
            assert messages(slow) == messages(first) == ["early", "missed"]
            position = slow.seen.acks[1][3]["position"]
            answer = await ask(third, "subscribe", "s", {"since": position})
            assert (answer["complete"], messages(third)) == (True, [])

    asyncio.run(scenario())


def test_a_session_that_moved_while_its_node_was_away_is_closed_there(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            one, two = both.one, both.two
            assert one.backend.recovery is not None
            moved, stays = (two.backend.new_subscriber_id() for _ in range(2))
            both.read = [(APP, private_log(moved)), (APP, private_log(stays))]
            async with both.cut():
                for subscriber_id in (moved, stays):
                    private = Publication(APP, Kind.PRIVATE, subscriber_id, b"before")
                    await one.publish(private, claim(f"before {subscriber_id}"))
                assert await one.backend.recovery.resume(APP, moved, 1)
                await one.publish(Publication(APP, Kind.PRIVATE, moved, b"after"), claim("after"))
            await asyncio.gather(one.settle(), two.settle())
            assert both.moved == [moved]
            assert [(p.name, p.event) for p in two.delivered] == [(stays, b"before")]
            assert [(p.name, p.event) for p in one.delivered] == [(moved, b"after")]

    asyncio.run(scenario())


def test_a_session_that_redis_forgot_is_noted_again(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with two_nodes(redis_server) as both:
            one, two = both.one, both.two
            assert one.backend.recovery is not None
            assert two.backend.recovery is not None
            subscriber_id = one.backend.new_subscriber_id()
            both.read = [(APP, private_log(subscriber_id))]
            assert await two.backend.recovery.resume(APP, subscriber_id, 3)
            owner = f"tambur:0:owner:key/app:{subscriber_id}"
            async with both.cut():
                redis_server.cli("DEL", owner)
                private = Publication(APP, Kind.PRIVATE, subscriber_id, b"x")
                await one.publish(private, claim("x"))
            await two.settle()
            assert [(p.name, p.event) for p in two.delivered] == [(subscriber_id, b"x")]
            assert both.moved == []
            assert redis_server.cli("HMGET", owner, "node", "number").split("\n") == [shard(two).node, "3"]
            assert not await one.backend.recovery.resume(APP, subscriber_id, 2)

    asyncio.run(scenario())
