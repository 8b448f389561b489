"""The contract of the queues of webhooks. A broker's own test module inherits it and creates its brokers."""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from tambur.server import App, Limits
from tambur.server.broker import AppKey, Backend, Entry
from tambur.server.broker.webhooks import QueuedEvent, queue_name
from tambur.server.webhooks.settings import Webhook
from tests.support.broker import APP, OTHER_APP, nobody_asks

SECRET = "whsec_" + "A" * 32
ALL, LEFT_ONLY = Webhook("https://h/all", SECRET), Webhook("https://h/left", SECRET, ("user.left",))
APPS = (App(*APP, ("s",), webhooks=(ALL, LEFT_ONLY)), App(*OTHER_APP, ("s",), webhooks=(ALL,)))
QUEUE, LEFT_QUEUE = queue_name(APP, ALL.url), queue_name(APP, LEFT_ONLY.url)
OTHER_QUEUE = queue_name(OTHER_APP, ALL.url)


class WebhookContract(abc.ABC):
    """Inherit it, and say how to make a backend."""

    @abc.abstractmethod
    def make(self, limits: Limits) -> Backend: ...

    def run(self, scenario: Any, limits: Limits | None = None) -> None:
        async def whole() -> None:
            backend = self.make(limits or Limits())
            await backend.start(lambda _: None, nobody_asks)
            try:
                await scenario(backend)
            finally:
                await backend.close()

        coroutine: Coroutine[Any, Any, None] = whole()
        asyncio.run(coroutine)

    async def visit(self, backend: Backend, user: str, stream: str = "s") -> None:
        """Have a user join and leave."""
        await backend.presence.join(APP, stream, user, f"{user} 1")
        backend.presence.leave(APP, stream, user, f"{user} 1")

    async def take(self, backend: Backend, queue: str = QUEUE, count: int = 100) -> list[QueuedEvent]:
        return list((await backend.webhooks.take(queue, count)).events)

    def test_the_first_join_and_the_last_leave_are_queued(self) -> None:
        async def scenario(backend: Backend) -> None:
            woken: set[str] = set()
            backend.webhooks.wake = woken.update
            before = int(time.time() * 1_000_000)
            entries = [Entry(APP, "s:\u00e4", "alice \U0001f600", name) for name in ("1", "2")]
            for entry in entries:
                await backend.presence.join(*entry)
            for entry in entries:
                backend.presence.leave(*entry)
            up, down = await self.take(backend)
            assert [up[1:], down[1:]] == [
                (is_up, APP, "s:\u00e4", "alice \U0001f600") for is_up in (True, False)
            ]
            # Redis has its own clock, which is that of this machine.
            assert before <= up.version < down.version
            assert [event.version for event in await self.take(backend, LEFT_QUEUE)] == [down.version]
            assert await self.take(backend, OTHER_QUEUE) == []
            assert woken == {QUEUE, LEFT_QUEUE}
            await backend.presence.join(AppKey("app", "without webhooks"), "s", "alice", "1")
            assert woken == {QUEUE, LEFT_QUEUE}

        self.run(scenario)

    def test_a_taken_event_is_not_taken_again_before_its_lease_ends(self) -> None:
        async def scenario(backend: Backend) -> None:
            await self.visit(backend, "alice")
            taken = await backend.webhooks.take(QUEUE, 1)
            assert [event.is_up for event in taken.events] == [True]
            assert (taken.next_s, taken.waiting, taken.dropped) == (0, 2, 0)
            assert 0 <= taken.oldest_s < 60
            taken = await backend.webhooks.take(QUEUE, 100)
            assert [event.is_up for event in taken.events] == [False]
            assert taken.next_s is not None
            assert 0 < taken.next_s <= 15
            assert await self.take(backend) == []

        self.run(scenario)

    def test_a_finished_event_is_gone_and_a_failed_one_comes_again(self) -> None:
        async def scenario(backend: Backend) -> None:
            await self.visit(backend, "alice")
            up, down = await self.take(backend)
            await backend.webhooks.finish(QUEUE, up.version)
            await backend.webhooks.retry(QUEUE, down.version, 0)
            await backend.webhooks.retry(QUEUE, up.version, 0)  # another node may have delivered it
            assert await self.take(backend) == [down]
            await backend.webhooks.retry(QUEUE, down.version, 100)
            taken = await backend.webhooks.take(QUEUE, 100)
            assert taken.events == []
            assert taken.waiting == 1
            assert taken.next_s is not None
            assert 15 < taken.next_s <= 100
            for version in (down.version, up.version):
                await backend.webhooks.finish(QUEUE, version)
            taken = await backend.webhooks.take(QUEUE, 100)
            assert taken == ([], None, 0, 0, 0)
            assert len(await self.take(backend, LEFT_QUEUE)) == 1

        self.run(scenario)

    def test_the_oldest_events_beyond_the_limit_are_dropped_and_counted(self) -> None:
        async def scenario(backend: Backend) -> None:
            for user in ("alice", "bob", "carol"):
                await self.visit(backend, user)
            taken = await backend.webhooks.take(QUEUE, 100)
            assert [(event.user_id, event.is_up) for event in taken.events] == [
                ("bob", False), ("carol", True), ("carol", False)
            ]  # fmt: skip
            assert taken.dropped == 3
            assert (await backend.webhooks.take(QUEUE, 100)).dropped == 0
            assert len(await self.take(backend, LEFT_QUEUE)) == 3

        self.run(scenario, Limits(max_webhook_events=3))

    def test_a_return_within_the_linger_is_not_queued(self) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.presence.join(APP, "s", "alice", "1")
            backend.presence.leave(APP, "s", "alice", "1", linger_s=1000)
            await backend.presence.join(APP, "s", "alice", "2")
            assert [event.is_up for event in await self.take(backend)] == [True]

        self.run(scenario)

    def test_versions_grow(self) -> None:
        async def scenario(backend: Backend) -> None:
            for _ in range(20):
                await self.visit(backend, "alice")
            events = await self.take(backend)
            versions = [event.version for event in events]
            assert versions == sorted(set(versions))
            assert [event.is_up for event in events] == [True, False] * 20

        self.run(scenario)
