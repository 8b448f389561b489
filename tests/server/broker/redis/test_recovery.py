"""The logs in Redis, and the tails that a node has of them: docs/explanation/recovery.md."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tambur.protocol.names import Kind
from tambur.server import App, Limits
from tambur.server.broker import Publication, direct_log, private_log
from tambur.server.broker.redis import scripts
from tambur.server.broker.redis.backend import RedisBackend
from tambur.server.broker.redis.recovery import RedisRecovery
from tambur.server.config import KeptStreams
from tests.support.broker import APP, NOW, RecordingBackend, claim, public
from tests.support.redis_nodes import run, shard
from tests.support.redis_server import RedisServer

Scenario = Callable[..., Awaitable[None]]
KEPT_APP = App(*APP, ("secret",), history=(KeptStreams("none-*", messages=0),))


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


def recovery(node: RecordingBackend) -> RedisRecovery:
    assert isinstance(node.backend, RedisBackend)
    return node.backend.recovery


async def publish(node: RecordingBackend, stream: str, *texts: str) -> None:
    for text in texts:
        await node.publish(public(stream, text), claim(f"{stream} {text[:20]}"), now=NOW)
    await node.broker.sync()


async def after(node: RecordingBackend, stream: str, place: int, user: str | None = None) -> list[str] | None:
    """The texts after a place; ``None`` if some may be missing."""
    if user is not None:
        recovery(node).need(APP, stream, user)
    await recovery(node).load(APP, stream, place, user)
    found = recovery(node).since(APP, stream, place, user)
    if user is not None:
        recovery(node).release(APP, stream, user)
    return None if found is None else [publication.event.decode() for publication in found]


async def tend(
    node: RecordingBackend, *, ttl_s: float = 120, position_ttl_s: int = 3600, floors: int = 1000
) -> bool:
    """Drop what is older, as nodes do from time to time; return whether there may be more of it."""
    link = shard(node).ready_link()
    arguments: list[Any] = [shard(node).keys.prefix, "key/app", position_ttl_s, floors, 0]
    for budget in ("key/app", "key/app/direct"):
        arguments += [budget, round(ttl_s * 1_000_000)]
    _, is_more = await link.call(*scripts.TEND(*arguments, keys=()))
    return bool(is_more)


def test_clients_that_come_back_together_read_a_log_once(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        start = recovery(one).place
        texts = [str(i) for i in range(50)]
        await publish(one, "s", *texts)
        middle = recovery(one).place
        await publish(one, "s", "last")
        await two.broker.subscribe(APP, "s")
        reader, reads = recovery(two)._reader, 0
        read = reader.read

        async def count(*arguments: Any) -> Any:
            nonlocal reads
            reads += 1
            return await read(*arguments)

        reader.read = count  # type: ignore[assignment,method-assign]
        answers = await asyncio.gather(
            *(after(two, "s", place) for place in (middle, start) for _ in range(50))
        )
        assert answers == [["last"]] * 50 + [[*texts, "last"]] * 50
        await publish(one, "s", "new")
        await two.broker.sync()
        assert await after(two, "s", middle) == ["last", "new"]
        assert await after(two, "s", 1) is None  # before the beginning of the epoch
        assert reads == 1

    run(redis_server, 2, scenario)


def test_every_node_counts_the_kept_messages_of_all_streams(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        await publish(one, "s", "1", "2")
        await publish(one, "t", "1")
        assert await recovery(two).count_kept(APP, ["t", "nothing", "s"]) == [1, 0, 2]

    run(redis_server, 2, scenario)


def test_a_log_of_many_megabytes_is_read_in_parts(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        start = recovery(one).place
        texts = [f"{i:019} " + "x" * 60_000 for i in range(60)]
        await publish(one, "s", *texts[:30])
        middle = recovery(one).place
        await publish(one, "s", *texts[30:])
        await two.broker.subscribe(APP, "s")
        assert await after(two, "s", middle) == texts[30:]
        assert await after(two, "s", start) == texts
        await recovery(two).load(APP, "s", None)
        assert [p.event.decode() for p in recovery(two).newest_first(APP, "s")] == texts[::-1]

    run(redis_server, 2, scenario, max_claims=1000)


def test_messages_beyond_the_limit_are_not_complete(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        places = [recovery(one).place]
        for i in range(4):
            await publish(one, "s", str(i))
            places.append(recovery(one).place)
        for node in (one, two):
            await node.broker.subscribe(APP, "s")
            assert await after(node, "s", places[0]) is None
            assert await after(node, "s", places[1]) == ["1", "2", "3"]
        await publish(one, "s", "4")
        for node in (one, two):
            await node.broker.sync()
            assert await after(node, "s", places[1]) is None
            assert await after(node, "s", places[2]) == ["2", "3", "4"]

    run(redis_server, 2, scenario, limits=Limits(history_messages=3))


def test_a_stream_that_keeps_nothing_is_complete_until_the_next_message(redis_server: RedisServer) -> None:
    async def scenario(node: RecordingBackend) -> None:
        await node.broker.subscribe(APP, "none-1")
        place = recovery(node).place
        assert await after(node, "none-1", place) == []
        await publish(node, "none-1", "x")
        assert await after(node, "none-1", place) is None
        assert await after(node, "none-1", recovery(node).place) == []
        assert redis_server.cli("KEYS", "tambur:0:log:*") == ""

    run(redis_server, 1, scenario, apps=(KEPT_APP,))


def test_messages_that_a_budget_evicts_are_not_complete(redis_server: RedisServer) -> None:
    limits = Limits(max_history_bytes=64 * 1024)

    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        start = recovery(one).place
        await publish(one, "quiet", "first")
        await publish(one, "other", "second")
        for i in range(20):
            await publish(one, "busy", f"{i:019} " + "x" * 4000)
        assert 0 < int(redis_server.cli("HGET", "tambur:0:bytes", "key/app")) <= limits.max_history_bytes
        for stream in ("quiet", "other", "busy"):
            await two.broker.subscribe(APP, stream)
            assert await after(two, stream, start) is None
            assert await after(two, stream, recovery(one).place) == []
        assert redis_server.cli("ZRANGE", "tambur:0:kept:key/app", "0", "-1") == "busy"

    run(redis_server, 2, scenario, limits=limits)


def test_expired_messages_leave_their_floor(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        start = recovery(one).place
        await publish(one, "s", "1", "2")
        await one.broker.send(Publication(APP, Kind.DIRECT, "s", b"3", "bob"))
        await one.broker.sync()
        place = recovery(one).place
        await tend(one, ttl_s=0)
        assert redis_server.cli("KEYS", "tambur:0:log:*") == ""
        assert redis_server.cli("KEYS", "tambur:0:kept:*") == ""
        await tend(one, ttl_s=0)
        assert redis_server.cli("HVALS", "tambur:0:bytes") == ""
        await two.broker.subscribe(APP, "s")
        assert await after(two, "s", start) is None
        assert await after(two, "s", place) == []
        assert await after(two, "s", start, "bob") is None
        assert await after(two, "s", place, "bob") == []

    run(redis_server, 2, scenario)


def test_positions_of_quiet_streams_hold_while_they_are_needed_and_for_a_time_after(
    redis_server: RedisServer,
) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        await one.broker.subscribe(APP, "quiet")
        recovery(one).need(APP, "quiet", "bob")
        await one.broker.sync()
        place = recovery(one).place
        await publish(one, "other", "x")
        await tend(one, ttl_s=0)
        # Nobody needs the other one, so it is forgotten, and all unknown streams share its floor.
        await tend(one, position_ttl_s=0)
        floors = "tambur:0:floors:key/app"
        assert [redis_server.cli("HEXISTS", floors, name) for name in ("", "quiet", "other")] == [
            "1",
            "1",
            "0",
        ]
        await two.broker.subscribe(APP, "unknown")
        await two.broker.subscribe(APP, "quiet")
        assert await after(two, "unknown", place) is None
        assert await after(two, "quiet", place, "bob") == []
        assert await after(two, "quiet", place, "carol") is None
        # After the last subscriber has left, the position holds for a time.
        for node in (one, two):
            node.broker.unsubscribe(APP, "quiet")
        recovery(one).release(APP, "quiet", "bob")
        await asyncio.gather(one.broker.sync(), two.broker.sync())
        await tend(one, position_ttl_s=3600)
        await two.broker.subscribe(APP, "quiet")
        assert await after(two, "quiet", place, "bob") == []
        two.broker.unsubscribe(APP, "quiet")
        await two.broker.sync()
        await tend(one, position_ttl_s=0)
        await two.broker.subscribe(APP, "quiet")
        assert await after(two, "quiet", place) is None

    run(redis_server, 2, scenario)


def test_names_that_nobody_needs_take_a_bounded_memory(redis_server: RedisServer) -> None:
    limits = Limits(max_history_bytes=64 * 1024)  # a quarter of it is room for 40 floors

    async def scenario(node: RecordingBackend) -> None:
        await node.broker.subscribe(APP, "quiet")
        place = recovery(node).place
        for i in range(200):
            await node.broker.subscribe(APP, f"s{i}")
            node.broker.unsubscribe(APP, f"s{i}")
        await node.broker.sync()
        assert int(redis_server.cli("HLEN", "tambur:0:floors:key/app")) <= 50
        assert await after(node, "quiet", place) == []
        # Needed ones are as many as there are subscriptions.
        for i in range(100):
            await node.broker.subscribe(APP, f"s{i}")
        assert int(redis_server.cli("HLEN", "tambur:0:floors:key/app")) >= 101

    run(redis_server, 1, scenario, limits=limits)


def test_a_log_takes_few_bytes_and_fewer_once_it_is_quiet(redis_server: RedisServer) -> None:
    def used() -> int:
        lines = redis_server.cli("INFO", "memory").splitlines()
        return int(next(line for line in lines if line.startswith("used_memory:")).partition(":")[2])

    async def scenario(node: RecordingBackend) -> None:
        async def send(i: int) -> None:
            await node.broker.send(Publication(APP, Kind.DIRECT, f"stream-{i}", b"x" * 128, "bob"))

        before, count = used(), 2000
        await asyncio.gather(*map(send, range(count)))
        assert 300 < (used() - before) / count <= 600
        while await tend(node, ttl_s=0, floors=count):
            pass
        assert redis_server.cli("HLEN", "tambur:0:floors:key/app") == str(count)
        assert (used() - before) / count <= 150

    run(redis_server, 1, scenario)


def test_direct_messages_are_those_of_their_user(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        start = recovery(one).place
        await publish(one, "s", "1")
        for user, text in (("bob", b"2"), ("carol", b"3")):
            await one.broker.send(Publication(APP, Kind.DIRECT, "s", text, user))
        await publish(one, "s", "4")
        await two.broker.subscribe(APP, "s")
        assert await after(two, "s", start, "bob") == ["1", "2", "4"]
        await one.broker.send(Publication(APP, Kind.DIRECT, "s", b"5", "bob"))
        await two.broker.sync()
        assert await after(two, "s", start, "bob") == ["1", "2", "4", "5"]
        assert await after(two, "s", start, "carol") == ["1", "3", "4"]
        assert await after(two, "s", start) == ["1", "4"]
        two.broker.unsubscribe(APP, "s")
        await one.broker.send(Publication(APP, Kind.DIRECT, "s", b"6", "bob"))
        await two.broker.subscribe(APP, "s")
        assert await after(two, "s", start, "bob") == ["1", "2", "4", "5", "6"]
        assert direct_log("s", "bob") not in recovery(two)._tails.direct(APP), "nobody needs it any more"

    run(redis_server, 2, scenario)


async def send_private(node: RecordingBackend, subscriber_id: str, text: bytes) -> None:
    await node.publish(Publication(APP, Kind.PRIVATE, subscriber_id, text), claim(text.decode()))


def test_a_session_is_continued_and_its_messages_are_read_in_one_step(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        subscriber_id = one.backend.new_subscriber_id()
        log = private_log(subscriber_id)

        start = recovery(one).place
        for text in (b"1", b"2"):
            await send_private(one, subscriber_id, text)
        calls: list[Any] = []
        link = shard(two).ready_link()
        call = link.call
        by_themselves = {scripts.SWEEP.digest, scripts.LEASE.digest}

        def note(*command: Any) -> Any:
            if command[1] not in by_themselves:  # nodes do these from time to time
                calls.append(command)
            return call(*command)

        monkeypatch.setattr(link, "call", note)
        assert await recovery(two).resume(APP, subscriber_id, 1, start)
        await send_private(one, subscriber_id, b"3")
        await two.broker.sync()
        assert await after(two, log, start) == ["1", "2", "3"]
        assert [command[1] for command in calls] == [scripts.RESUME.digest]
        assert redis_server.cli("HGET", "tambur:0:floors:key/app", log).split(" ")[1:]
        recovery(two).release(APP, log)
        assert log not in recovery(two)._tails.default(APP)

    run(redis_server, 2, scenario)


def test_a_session_that_returns_misses_nothing_that_another_node_received_meanwhile(
    redis_server: RedisServer,
) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        subscriber_id = one.backend.new_subscriber_id()
        log = private_log(subscriber_id)

        start = recovery(one).place
        for number, (node, text) in enumerate(((one, b"1"), (two, b"2"), (one, b"3"))):
            # The first node never releases the log: its old connection is still there.
            assert await recovery(node).resume(APP, subscriber_id, number, start)
            await send_private(one, subscriber_id, text)
        await one.broker.sync()
        assert await after(one, log, start) == ["1", "2", "3"]
        # A refused resume leaves everything as it is.
        assert not await recovery(one).resume(APP, subscriber_id, 1, start)
        assert not shard(one).ready_link()._replies
        assert await after(one, log, start) == ["1", "2", "3"]

    run(redis_server, 2, scenario)


def test_a_session_that_another_node_continued_before_the_answer_came_is_not_resumed(
    redis_server: RedisServer,
) -> None:
    async def scenario(node: RecordingBackend) -> None:
        sessions = recovery(node).owners
        subscriber_id = node.backend.new_subscriber_id()
        resuming = asyncio.ensure_future(recovery(node).resume(APP, subscriber_id, 1))
        await asyncio.sleep(0)  # the call is sent
        assert sessions.lose(APP, subscriber_id, 2) is True
        assert not await resuming
        assert not sessions._lost
        assert not recovery(node)._needs
        assert await recovery(node).resume(APP, subscriber_id, 1)
        assert sessions.lose(APP, subscriber_id, 1) is False

    run(redis_server, 1, scenario)
