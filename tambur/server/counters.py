"""Counters of what a server has done since it started, for the metrics and the console."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .broker import Publication, Published
from .logs import line

if TYPE_CHECKING:
    from .stream import Stream  # it counts deliveries

logger = logging.getLogger("tambur.server")


class Observer(Protocol):
    """Receives more details than the counters keep. No method may raise.

    Attributes:
        is_tracing: whether :meth:`delivering`, :meth:`dropped` and :meth:`wrote` are wanted.
    """

    is_tracing: bool

    def refused(self, event: str, facts: Mapping[str, object]) -> None:
        """A request, subscriber or command was refused, or a subscriber was closed.

        Parameters:
            event: the event of the log line.
            facts: its facts; those that are ``None`` do not apply.
        """

    def published(
        self, publication: Publication, published: Published | None, check_s: float | None, broker_s: float
    ) -> None:
        """The broker took a publication.

        Parameters:
            published: the broker's answer; ``None`` for one of a batch.
            check_s: seconds that this node needed to check the request, without reading it; ``None`` for a
                batch and for the console.
            broker_s: seconds that the broker took. 0 for a batch.
        """

    def delivering(self, publication: Publication, stream: Stream) -> None:
        """A publication of a stream is about to be added to the queue of this node."""

    def dropped(self, users: Collection[str]) -> None:
        """A subscriber was dropped because it read too slowly.

        Parameters:
            users: those for which it had modes enabled.
        """

    def wrote(self, stream: Stream, began: float, slow_subscribers: int) -> None:
        """The node has written to some subscribers of a stream.

        Parameters:
            began: when it began, by ``time.perf_counter``.
            slow_subscribers: how many were dropped meanwhile because they read too slowly: the last ones that
                :meth:`dropped` had.
        """


@dataclass
class Counts:
    """Only the event loop changes them, so they need no lock.

    Attributes:
        publishes: answered publishes, by HTTP status.
        queries: answered queries, by their word, such as ``"users"``, and HTTP status.
        deliveries: messages and presence events written to subscribers.
        refused: refused subscribers and tokens, by a code such as ``"unknown_app"``.
        slow_subscribers: subscribers that were dropped because they read too slowly.
        broker_calls: publishes that the broker has answered.
        broker_s: seconds that these took in all.
        resumed_sessions: sessions that continued on another connection.
        refused_sessions: session keys that did not continue a session.
        incomplete: answers with ``"complete": false``, to a subscribe or a ``hello``.
        observer: notes more for the console of this node, or of another one; ``None`` if none needs it.
    """

    publishes: Counter[int] = field(default_factory=Counter)
    queries: Counter[tuple[str, int]] = field(default_factory=Counter)
    deliveries: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slow_subscribers: int = 0
    broker_calls: int = 0
    broker_s: float = 0.0
    resumed_sessions: int = 0
    refused_sessions: int = 0
    incomplete: int = 0
    observer: Observer | None = None

    def count_publish(
        self, publication: Publication, published: Published, check_s: float, broker_s: float
    ) -> None:
        """Count a publish that the broker took; the parameters are those of :meth:`Observer.published`."""
        self.broker_calls += 1
        self.broker_s += broker_s
        if self.observer is not None:
            self.observer.published(publication, published, check_s, broker_s)

    def count_hello(self, session: str | None, *, is_resumed: bool, complete: bool) -> None:
        """Count the answer to a ``hello``.

        Parameters:
            session: the key that the client gave; ``None`` for a new session.
            is_resumed: whether that session continues.
            complete: whether nothing is missing.
        """
        if session is not None:
            self.resumed_sessions += is_resumed
            self.refused_sessions += not is_resumed
        self.incomplete += not complete

    def log_refusal(self, event: str, facts: Mapping[str, object], level: int = logging.INFO) -> None:
        """Log that something was refused, or that a subscriber was closed.

        Parameters:
            event: the name of the event.
            facts: as for :func:`~tambur.server.logs.line`.
            level: of the log line.
        """
        if logger.isEnabledFor(level):
            logger.log(level, line(event, **facts))
        if self.observer is not None:
            self.observer.refused(event, facts)
