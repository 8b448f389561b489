"""Extended connections without a network: how long quiet logs are remembered."""

from __future__ import annotations

import asyncio
import time

import pytest

from tambur.protocol import close_codes
from tambur.protocol.messages import encode_message
from tambur.protocol.names import Kind
from tambur.server import Limits
from tambur.server.broker import AppKey, Claim, Publication, private_log
from tambur.server.broker.memory import MemoryBackend
from tambur.server.extended_hub import ExtendedHub

from ..support import redis_nodes
from ..support.broker import NOW, nobody_asks
from ..support.node import APP, SIGNER, LocalClient, Node, ask, messages, run, settle
from ..support.redis_server import RedisServer

HOUR_S = 3600.0
LOST_ID = "a0629978-28d8-4fd4-b862-f67e9b6dfd8f"
BACK_ID = "b0629978-28d8-4fd4-b862-f67e9b6dfd8f"
LIMITS = Limits(session_ttl_s=20 * HOUR_S, position_ttl_s=HOUR_S)


class Clock:
    def __init__(self) -> None:
        self.now = time.time()  # places that the backend gave when it was made are not in the future

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("away_s", "complete"), [(HOUR_S - 1, True), (HOUR_S + 1, False)])
def test_positions_of_logs_that_were_quiet_for_hours_are_complete_until_they_are_forgotten(
    away_s: float, complete: bool
) -> None:
    clock = Clock()
    backend = MemoryBackend(max_claims=1000, limits=LIMITS)
    backend.recovery._clock = clock

    async def scenario(node: Node) -> None:
        lost = node.client(LOST_ID, limits=LIMITS)
        hello = await ask(lost, "hello", {})
        direct = ["alice", SIGNER.direct("s", "alice", LOST_ID)]
        subscribed = await ask(lost, "subscribe", "s", {"direct": direct})
        for i in range(10):
            clock.now += HOUR_S
            await node.publish(f"another {i}", "x")  # logs are forgotten, which raises the common floor
        lost.connection.close()
        await settle()
        assert node.is_empty()
        clock.now += away_s
        back = node.client(BACK_ID, limits=LIMITS)
        since = {"session": hello["session"], "since": hello["position"]}
        resumed = await ask(back, "hello", since)
        assert (resumed["resumed"], resumed["complete"]) == (True, complete)
        options = {"direct": direct, "since": subscribed["position"]}
        assert (await ask(back, "subscribe", "s", options))["complete"] is complete
        back.connection.close()
        await settle()
        for history in (
            backend.recovery._budgets.default(APP.key),
            backend.recovery._budgets.direct(APP.key),
        ):
            for _ in range(2):  # the messages expire, then the logs are forgotten
                clock.now += 2 * HOUR_S
                history.tidy(round(clock.now * 1_000_000))
            assert len(history) == 0

    run(scenario, lambda: Node(backend))


def test_the_log_of_direct_messages_of_a_user_is_remembered_while_a_connection_reads_it() -> None:
    clock = Clock()
    backend = MemoryBackend(max_claims=1000, limits=LIMITS)
    backend.recovery._clock = clock

    async def scenario(node: Node) -> None:
        reader = node.client(LOST_ID, limits=LIMITS)
        await ask(reader, "hello", {})
        direct = ["alice", SIGNER.direct("s", "alice", LOST_ID)]
        await ask(reader, "subscribe", "s", {"direct": direct})
        place = backend.recovery.place
        for i in range(10):
            clock.now += HOUR_S
            await node.hub.send_direct(APP.key, "s", "bob", f"user {i}", "x")
        assert backend.recovery.since(APP.key, "s", place, "alice") == []
        assert backend.recovery.since(APP.key, "s", place, "nobody") is None
        reader.command("unset_mode", "direct", "s")
        await settle()
        clock.now += HOUR_S + 1
        await node.hub.send_direct(APP.key, "s", "bob", "the last", "x")
        assert backend.recovery.since(APP.key, "s", place, "alice") is None

    run(scenario, lambda: Node(backend))


def test_a_session_that_ends_while_it_is_resumed_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend(max_claims=1000)
    recovery = backend.recovery
    released: list[str] = []
    resume, release = recovery.resume, recovery.release

    async def scenario(node: Node) -> None:
        async def ending(app: AppKey, subscriber_id: str, number: int, place: int | None) -> int:
            found = await resume(app, subscriber_id, number, place)
            node.hub.end_session(app, subscriber_id)
            return found

        def noting(app: AppKey, log: str, user_id: str | None = None) -> None:
            released.append(log)
            release(app, log, user_id)

        lost = node.client(LOST_ID)
        hello = await ask(lost, "hello", {})
        lost.connection.close()
        await settle()
        monkeypatch.setattr(recovery, "resume", ending)
        monkeypatch.setattr(recovery, "release", noting)
        back = node.client(BACK_ID)
        resumed = await ask(back, "hello", {"session": hello["session"]})
        assert (resumed["resumed"], resumed["id"]) == (False, BACK_ID)
        assert released == [private_log(LOST_ID)]

    run(scenario, lambda: Node(backend))


def test_a_stream_is_subscribed_to_while_no_position_can_be_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend(max_claims=1000)

    async def scenario(node: Node) -> None:
        await node.publish("kept-1", "before")
        monkeypatch.setattr(backend.recovery, "since", lambda *_, **__: None)
        client = node.client(BACK_ID)
        await ask(client, "hello", {})
        for number, options in enumerate(({}, {"last": 5})):
            answer = await ask(client, "subscribe", f"kept-{number}", options)
            assert (answer["complete"], answer["replayed"]) == (True, 0)
            await node.publish(f"kept-{number}", "after")
        assert (messages(client), client.seen.closed) == (["after", "after"], None)
        answer = await ask(client, "subscribe", "another", {"since": answer["position"]})
        assert (answer["complete"], client.seen.closed) == (False, None)

    run(scenario, lambda: Node(backend))


def test_a_message_that_arrives_while_the_newest_are_read_is_replayed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = MemoryBackend(max_claims=1000)

    async def scenario(node: Node) -> None:
        async def load(app: AppKey, log: str, place: int | None) -> None:
            if place is None:
                await node.publish(log, "meanwhile")

        monkeypatch.setattr(backend.recovery, "load", load)
        await node.publish("kept-1", "before")
        client = node.client(BACK_ID)
        await ask(client, "hello", {})
        answer = await ask(client, "subscribe", "kept-1", {"last": 5})
        assert answer["replayed"] == 2
        await node.publish("kept-1", "after")
        assert messages(client) == ["before", "meanwhile", "after"]

    run(scenario, lambda: Node(backend))


def test_a_resumed_session_reads_direct_messages_while_its_lost_connection_leaves(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.cli("FLUSHDB")
    backend = redis_nodes.backend(redis_server, apps=(APP,))
    hub, recovery = ExtendedHub(backend, coalesce_window_s=0), backend.recovery

    async def scenario() -> None:
        await backend.start(hub.deliver, nobody_asks)
        lost = LocalClient(hub, backend.new_subscriber_id())
        hello = await ask(lost, "hello", {})
        direct = ["alice", SIGNER.direct("s", "alice", lost.subscriber_id)]
        since = (await ask(lost, "subscribe", "s", {"direct": direct}))["position"]
        await hub.send_direct(APP.key, "s", "bob", "alice", "meanwhile")
        back = LocalClient(hub, backend.new_subscriber_id())
        assert (await ask(back, "hello", {"session": hello["session"]}))["resumed"]
        load = recovery.load

        async def load_and_leave(
            app: AppKey, log: str, place: int | None, user_id: str | None = None
        ) -> None:
            await load(app, log, place, user_id)
            lost.connection.close(close_codes.SESSION_MOVED)

        monkeypatch.setattr(recovery, "load", load_and_leave)
        answer = await ask(back, "subscribe", "s", {"since": since, "direct": direct})
        assert (answer["complete"], messages(back)) == (True, [["bob", "meanwhile"]])
        back.connection.close()
        assert not recovery._begun, "nobody reads any more"
        await backend.close()

    asyncio.run(scenario())


def test_the_newest_messages_are_replayed_to_a_resumed_session_with_direct_mode(
    redis_server: RedisServer,
) -> None:
    redis_server.cli("FLUSHDB")
    backend = redis_nodes.backend(redis_server, apps=(APP,))
    hub = ExtendedHub(backend, coalesce_window_s=0)

    async def scenario() -> None:
        await backend.start(hub.deliver, nobody_asks)
        lost = LocalClient(hub, backend.new_subscriber_id())
        hello = await ask(lost, "hello", {})
        lost.connection.close()
        back = LocalClient(hub, backend.new_subscriber_id())
        assert (await ask(back, "hello", {"session": hello["session"]}))["resumed"]
        claim = Claim(APP.key, NOW, b"n", b"s")
        kept = Publication(APP.key, Kind.PUBLIC, "kept-1", encode_message(Kind.PUBLIC, "kept-1", "before"))
        await backend.broker.publish(kept, claim, now=NOW, max_publishes_per_s=None)
        direct = ["alice", SIGNER.direct("kept-1", "alice", lost.subscriber_id)]
        answer = await ask(back, "subscribe", "kept-1", {"last": 5, "direct": direct})
        assert (answer["replayed"], messages(back)) == (1, ["before"])
        await backend.close()

    asyncio.run(scenario())
