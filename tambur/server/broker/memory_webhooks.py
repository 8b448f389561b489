"""The queues of events for webhooks in the memory of one process; they end with it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterable

from ..config import App
from . import AppKey
from .webhooks import LEASE_S, MAX_AGE_S, QueuedEvent, Taken, queues_by_app


class _Queue:
    """The events for one endpoint. Dicts keep their order, so the first event is the oldest."""

    def __init__(self) -> None:
        self.events: dict[int, QueuedEvent] = {}
        self.due_at: dict[int, float] = {}
        # Pairs of due_at and version. Those that differ from due_at are out of date.
        self.heap: list[tuple[float, int]] = []
        self.dropped = 0

    def schedule(self, version: int, due_at: float) -> None:
        self.due_at[version] = due_at
        heapq.heappush(self.heap, (due_at, version))

    def remove(self, version: int) -> None:
        self.events.pop(version, None)
        self.due_at.pop(version, None)

    def drop_oldest(self) -> None:
        self.remove(next(iter(self.events)))
        self.dropped += 1

    def next_due(self) -> tuple[float, int] | None:
        """When the next event is due, and its version."""
        while self.heap and self.due_at.get(self.heap[0][1]) != self.heap[0][0]:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None


class MemoryWebhooks:
    """The queues of all endpoints.

    Parameters:
        apps: the apps; only those with webhooks have queues.
        max_events: how many events wait for one endpoint; the oldest are dropped.
        clock: seconds since 1970.
    """

    def __init__(
        self, apps: Iterable[App], *, max_events: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._by_app = queues_by_app(apps)
        self._queues = {name: _Queue() for both in self._by_app.values() for names in both for name in names}
        self._max_events = max_events
        self._clock = clock
        self._version = 0
        self.wake: Callable[[Collection[str]], None] = lambda _: None

    def add(self, app: AppKey, stream: str, user_id: str, *, is_up: bool) -> None:
        """Queue the event of a user who joined or left."""
        names = self._by_app.get(app, ((), ()))[is_up]
        if not names:
            return
        now = self._clock()
        self._version = max(int(now * 1_000_000), self._version + 1)
        event = QueuedEvent(self._version, is_up, app, stream, user_id)
        for name in names:
            queue = self._queues[name]
            queue.events[event.version] = event
            queue.schedule(event.version, now)
            if len(queue.events) > self._max_events:
                queue.drop_oldest()
        self.wake(names)

    async def take(self, queue: str, count: int) -> Taken:
        found, now = self._queues[queue], self._clock()
        while found.events and next(iter(found.events)) < (now - MAX_AGE_S) * 1_000_000:
            found.drop_oldest()
        taken: list[QueuedEvent] = []
        while (due := found.next_due()) is not None and due[0] <= now and len(taken) < count:
            taken.append(found.events[due[1]])
            found.schedule(due[1], now + LEASE_S)
        oldest = next(iter(found.events), None)
        dropped, found.dropped = found.dropped, 0
        return Taken(
            taken,
            None if due is None else max(0.0, due[0] - now),
            len(found.events),
            0.0 if oldest is None else max(0.0, now - oldest / 1_000_000),
            dropped,
        )

    async def finish(self, queue: str, version: int) -> None:
        self._queues[queue].remove(version)

    async def retry(self, queue: str, version: int, delay_s: float) -> None:
        if version in self._queues[queue].events:
            self._queues[queue].schedule(version, self._clock() + delay_s)
