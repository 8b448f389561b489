"""Counters of what a server has done since it started, for the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


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
    """

    publishes: Counter[int] = field(default_factory=Counter)
    queries: Counter[tuple[str, int]] = field(default_factory=Counter)
    deliveries: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slow_subscribers: int = 0
    broker_calls: int = 0
    broker_s: float = 0.0
