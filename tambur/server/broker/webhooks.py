"""The queues of events for webhooks. A broker fills them in one step with the change of presence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ...protocol.webhooks import JOINED, LEFT
from . import AppKey

if TYPE_CHECKING:
    from ..config import App

MAX_AGE_S = 24 * 3600
"""How long an event is kept, in seconds (section 10 of the protocol)."""

LEASE_S = 15.0
"""Seconds for which an event is taken by one node. Afterwards any node may take it.

A request takes at most 10 s, see :data:`tambur.server.webhooks.client.TIMEOUT_S`.
"""


class QueuedEvent(NamedTuple):
    """An event that waits for an endpoint.

    Attributes:
        version: the microseconds since 1970 at which it happened, or more; unique in the cluster.
        is_up: whether the user joined, or left.
        app, stream, user_id: where, and who.
    """

    version: int
    is_up: bool
    app: AppKey
    stream: str
    user_id: str


class Taken(NamedTuple):
    """The events of a queue that are due, and the state of the queue.

    Attributes:
        events: those that were taken.
        next_s: seconds until the next one is due; ``None`` if there is none.
        waiting: how many events the queue holds.
        oldest_s: the age of the oldest one in seconds; 0 if there is none.
        dropped: how many events were dropped since the last call, on any node.
    """

    events: Sequence[QueuedEvent]
    next_s: float | None
    waiting: int
    oldest_s: float
    dropped: int


class WebhookQueues(Protocol):
    """The queues, by name. Every coroutine may raise :class:`BrokerUnavailableError`.

    Attributes:
        wake: called with the names of queues to which this node may add an event in this turn.
    """

    wake: Callable[[Collection[str]], None]

    async def take(self, queue: str, count: int) -> Taken:
        """Take events that are due. Without a further call, they are due again after :data:`LEASE_S`."""

    async def finish(self, queue: str, version: int) -> None:
        """Remove an event."""

    async def retry(self, queue: str, version: int, delay_s: float) -> None:
        """Let an event be due again after a delay."""


def queue_name(app: AppKey, url: str) -> str:
    """The name of the queue of an endpoint."""
    return hashlib.sha256("\n".join((*app, url)).encode()).hexdigest()[:32]


def queues_by_app(apps: Iterable[App]) -> dict[AppKey, tuple[tuple[str, ...], tuple[str, ...]]]:
    """For each app with webhooks, the queues for users who left, and for users who joined."""
    return {
        app.key: (
            tuple(queue_name(app.key, webhook.url) for webhook in app.webhooks if LEFT in webhook.events),
            tuple(queue_name(app.key, webhook.url) for webhook in app.webhooks if JOINED in webhook.events),
        )
        for app in apps
        if app.webhooks
    }
