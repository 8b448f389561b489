"""What a server has done since it started: whoever does it counts it here, and metrics read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counts:
    """All from one event loop, so that adding needs no lock.

    Attributes:
        publishes: how many were answered, by HTTP status.
        deliveries: how many messages were handed to subscribers.
        refused: how many subscribers and tokens were refused, by a code such as ``"unknown_app"``.
        slow_subscribers: how many were dropped because they read too slowly.
        broker_calls: how many publishes the broker has answered.
        broker_s: how long that took it altogether, in seconds.
    """

    publishes: Counter[int] = field(default_factory=Counter)
    deliveries: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slow_subscribers: int = 0
    broker_calls: int = 0
    broker_s: float = 0.0
