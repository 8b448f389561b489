"""The queues of events for webhooks in Redis, which all nodes share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ...config import App
from .. import AppKey
from ..webhooks import LEASE_S, QueuedEvent, Taken, queues_by_app
from . import scripts
from .keys import scope
from .shard import Shard


class RedisWebhooks:
    """The queues of all endpoints.

    Parameters:
        shard: the Redis.
        apps: the apps; only those with webhooks have queues. All nodes must know the same.
        max_events: how many events wait for one endpoint; the oldest are dropped.
    """

    def __init__(self, shard: Shard, apps: Iterable[App], *, max_events: int) -> None:
        self._shard = shard
        self._queues = {scope(app): both for app, both in queues_by_app(apps).items()}
        self._max_events = max_events
        self.wake: Callable[[Collection[str]], None] = lambda _: None

    def expect(self, app: str, *, is_up: bool) -> tuple[str, int]:
        """The arguments of a script that this turn sends, and that may queue an event of an app.

        Parameters:
            app: the scope of the app.
            is_up: whether a user joins, or leaves.
        """
        queues = self._queues.get(app, ((), ()))[is_up]
        if queues:
            self.wake(queues)
        return " ".join(queues), self._max_events

    def expect_any(self) -> tuple[str | int, ...]:
        """The arguments of a script that may queue the events of users of any app who leave."""
        pairs = ((app, " ".join(left)) for app, (left, _) in self._queues.items() if left)
        return self._max_events, *(value for pair in pairs for value in pair)

    def wake_all(self) -> None:
        """Such a script has queued events."""
        self.wake([queue for left, _ in self._queues.values() for queue in left])

    async def take(self, queue: str, count: int) -> Taken:
        lease_ms = round(LEASE_S * 1000)
        arguments = self._shard.keys.prefix, queue, count, lease_ms
        entries, next_ms, waiting, oldest_s, dropped = await self._shard.ready_link().call(
            *scripts.TAKE(*arguments, keys=())
        )
        next_s = float(next_ms) / 1000 if next_ms else None
        return Taken(list(map(_decode, entries)), next_s, waiting, float(oldest_s), dropped)

    async def finish(self, queue: str, version: int) -> None:
        keys = self._shard.keys.events(queue), self._shard.keys.due(queue)
        await self._shard.ready_link().call(*scripts.FINISH(version, keys=keys))

    async def retry(self, queue: str, version: int, delay_s: float) -> None:
        keys = (self._shard.keys.due(queue),)
        await self._shard.ready_link().call(*scripts.RETRY(version, round(delay_s * 1000), keys=keys))


def _decode(entry: bytes) -> QueuedEvent:
    version, word, place, user_id = entry.decode().split("\n")
    app, _, stream = place.partition(":")
    api_key, _, app_id = app.partition("/")
    return QueuedEvent(int(version), word == "up", AppKey(api_key, app_id), stream, user_id)
