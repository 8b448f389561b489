"""The queues of webhooks in memory: the contract, and how long events are kept."""

from __future__ import annotations

import asyncio

from tambur.server import Limits
from tambur.server.broker import Backend
from tambur.server.broker.memory import MemoryBackend
from tambur.server.broker.memory_webhooks import MemoryWebhooks
from tests.support.broker import APP

from .webhook_contract import APPS, QUEUE, WebhookContract


class TestMemoryWebhooks(WebhookContract):
    def make(self, limits: Limits) -> Backend:
        return MemoryBackend(max_claims=1, apps=APPS, limits=limits)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_event_is_taken_again_after_its_lease_and_dropped_after_a_day() -> None:
    clock = Clock()
    queues = MemoryWebhooks(APPS, max_events=10, clock=clock)
    queues.add(APP, "s", "alice", is_up=True)

    async def scenario() -> None:
        (event,) = (await queues.take(QUEUE, 10)).events
        clock.now += 15
        assert (await queues.take(QUEUE, 10)).events == [event]
        await queues.retry(QUEUE, event.version, 5)
        clock.now += 4.9
        assert (await queues.take(QUEUE, 10)).events == []
        clock.now += 0.2
        assert (await queues.take(QUEUE, 10)).events == [event]
        clock.now = 1000 + 24 * 3600
        taken = await queues.take(QUEUE, 10)
        assert (taken.events, taken.oldest_s, taken.dropped) == ([event], 24 * 3600, 0)
        clock.now += 0.1
        assert await queues.take(QUEUE, 10) == ([], None, 0, 0, 1)

    asyncio.run(scenario())


def test_versions_grow_when_the_clock_does_not() -> None:
    clock = Clock()
    queues = MemoryWebhooks(APPS, max_events=10, clock=clock)

    async def scenario() -> None:
        for now in (1000, 1000, 999):
            clock.now = now
            queues.add(APP, "s", "alice", is_up=True)
        clock.now = 1001
        versions = [event.version for event in (await queues.take(QUEUE, 10)).events]
        assert sorted(versions) == [1000_000_000, 1000_000_001, 1000_000_002]

    asyncio.run(scenario())
