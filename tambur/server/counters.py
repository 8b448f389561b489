"""Counters of what a server has done since it started, for the metrics and the console."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .logs import line

logger = logging.getLogger("tambur.server")


class Observer(Protocol):
    """Receives more details than the counters keep. No method may raise."""

    def refused(self, event: str, facts: Mapping[str, object]) -> None:
        """A request, subscriber or command was refused, or a subscriber was closed.

        Parameters:
            event: the event of the log line.
            facts: its facts; those that are ``None`` do not apply.
        """

    def broker_answered(self, seconds: float) -> None:
        """The broker took a publish, in this time."""


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
        observer: the console; ``None`` without one.
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

    def broker_answered(self, seconds: float) -> None:
        """Count a publish that the broker took."""
        self.broker_calls += 1
        self.broker_s += seconds
        if self.observer is not None:
            self.observer.broker_answered(seconds)

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
