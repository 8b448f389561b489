"""The in-memory backend."""

from __future__ import annotations

import asyncio

import pytest

from tambur import ConfigurationError
from tambur.server.broker import CLAIM_WINDOW_S, Backend, BrokerUnavailableError, Outcome, memory
from tambur.server.broker.factory import from_url
from tambur.server.broker.memory import BATCH_STEP, MemoryBackend, MemoryRevocations
from tests.support.broker import APP, NOW, OTHER_APP, RecordingBackend, claim, nobody_asks, public

from .contract import BrokerContract


class TestMemoryBackend(BrokerContract):
    def make(self, *, max_claims: int = 100) -> Backend:
        return from_url("memory://", max_claims=max_claims, node_timeout_s=30)


def test_tokens_come_back_at_the_rate() -> None:
    clock = [0.0]

    async def scenario() -> None:
        node = RecordingBackend(MemoryBackend(max_claims=100, monotonic=lambda: clock[0]))
        await node.backend.start(node.delivered.append, nobody_asks)

        async def outcome(nonce: str) -> Outcome:
            return (await node.publish(public("s", "x"), claim(nonce), rate=0.5)).outcome

        assert await outcome("1") is Outcome.DELIVERED
        published = await node.publish(public("s", "x"), claim("2"), rate=0.5)
        assert published.retry_after_s == 2
        clock[0] = 1.9
        assert await outcome("2") is Outcome.RATE_LIMITED
        clock[0] = 2.0
        assert await outcome("2") is Outcome.DELIVERED
        clock[0] = 1000.0
        assert await outcome("3") is Outcome.DELIVERED
        assert await outcome("4") is Outcome.RATE_LIMITED

    asyncio.run(scenario())


def test_each_message_of_a_batch_counts_and_one_token_admits_all() -> None:
    clock = [0.0]

    async def scenario() -> None:
        node = RecordingBackend(MemoryBackend(max_claims=100, monotonic=lambda: clock[0]))
        await node.backend.start(node.delivered.append, nobody_asks)
        batch = [public("s", str(i)) for i in range(10)]
        assert await node.publish_batch(batch, claim("1"), rate=5) is Outcome.DELIVERED
        published = await node.publish(public("s", "x"), claim("2"), rate=5)
        assert (published.outcome, published.retry_after_s) == (Outcome.RATE_LIMITED, 1.2)
        assert await node.publish_batch(batch, claim("3"), rate=5) is Outcome.RATE_LIMITED
        assert await node.broker.claimed(claim("3")) is None
        clock[0] = 1.2
        assert await node.publish_batch(batch, claim("3"), rate=5) is Outcome.DELIVERED

    asyncio.run(scenario())


def test_a_slow_delivery_ends_the_turn_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BATCH_TURN_S", 0.0)

    async def scenario() -> None:
        backend = MemoryBackend(max_claims=100)
        node = RecordingBackend(backend)
        await backend.start(node.deliver, nobody_asks)
        await backend.broker.subscribe(APP, "s")
        batch = [public("s", str(i)) for i in range(10)]
        delivering = asyncio.ensure_future(node.publish_batch(batch, claim("n")))
        for count in range(1, 11):
            await asyncio.sleep(0)
            assert node.delivered == batch[:count]
        assert await delivering is Outcome.DELIVERED

    asyncio.run(scenario())


def test_a_batch_that_failed_halfway_is_continued_where_it_ended() -> None:
    async def scenario() -> None:
        backend = MemoryBackend(max_claims=100)
        node = RecordingBackend(backend)
        await backend.start(node.deliver, nobody_asks)
        await backend.broker.subscribe(APP, "s")
        batch = [public("s", str(i)) for i in range(3 * BATCH_STEP)]
        delivering = asyncio.ensure_future(node.publish_batch(batch, claim("n")))
        await asyncio.sleep(0)
        await backend.close()
        with pytest.raises(BrokerUnavailableError):
            await delivering
        assert 0 < len(node.delivered) <= BATCH_STEP
        assert node.delivered == batch[: len(node.delivered)]
        await backend.start(node.deliver, nobody_asks)
        assert await node.publish_batch(batch, claim("n")) is Outcome.DELIVERED
        assert node.delivered == batch
        assert await node.publish_batch(batch, claim("n")) is Outcome.REPLAYED
        assert backend.broker._progress == {}

    asyncio.run(scenario())


def test_claims_that_are_past_take_no_room() -> None:
    async def scenario() -> None:
        backend = MemoryBackend(max_claims=10**9)
        broker = backend.broker
        node = RecordingBackend(backend)
        await backend.start(node.delivered.append, nobody_asks)
        for second in range(2 * CLAIM_WINDOW_S):
            now = NOW + second
            await node.publish(public("s", "x"), claim("n", timestamp=now), now=now)
            if second == 0:
                await node.publish(public("s", "x"), claim("n", timestamp=now, app=OTHER_APP), now=now)
        assert broker._claims_count == {APP: CLAIM_WINDOW_S + 1}
        assert list(broker._claims.values()) == [{APP: {b"n": b"s"}}] * (CLAIM_WINDOW_S + 1)

    asyncio.run(scenario())


def test_nothing_is_left_of_a_stream_that_everybody_left() -> None:
    async def scenario() -> None:
        backend = MemoryBackend(max_claims=1)
        await backend.start(lambda _: None, nobody_asks)
        await backend.broker.subscribe(APP, "s")
        await backend.presence.join(APP, "s", "alice", "a1")
        backend.presence.leave(APP, "s", "alice", "a1")
        backend.broker.unsubscribe(APP, "s")
        assert (backend.presence._present, backend.broker._subscribed) == ({}, set())

    asyncio.run(scenario())


def test_sessions_begin_after_a_disconnect_while_the_clock_is_set_back() -> None:
    clock = [1000.0]
    revocations = MemoryRevocations(clock=lambda: clock[0])
    begun_ms = revocations.now_ms()
    clock[0] = 10.0
    for _ in range(2):
        revoked_ms = asyncio.run(revocations.revoke(APP, (), "alice"))
        assert begun_ms <= revoked_ms
        begun_ms = revocations.now_ms()
        assert begun_ms > revoked_ms


@pytest.mark.parametrize("url", ["", "memory", "kafka://:hunter2@h"])
def test_an_unknown_broker_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="broker must be") as caught:
        from_url(url, max_claims=1, node_timeout_s=30)
    assert "hunter2" not in str(caught.value)
