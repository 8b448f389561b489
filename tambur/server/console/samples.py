"""The figures of the last minutes, sampled at equal intervals."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..hub import Hub
from ..webhooks.delivery import Webhooks
from .feed import Feed
from .watch import Watch

INTERVAL_S = 2.0
"""Seconds between two samples; the first two may be half or one and a half times as far apart."""

KEPT_SAMPLES = 301
"""Ten minutes."""


class Sample(NamedTuple):
    """The state of a server at one time.

    Attributes:
        at: when, in seconds since 1970.
        connections: connected subscribers.
        subscriptions: subscribed streams, summed over all subscribers.
        publishes: accepted messages a second.
        deliveries: events written to subscribers a second.
        refusals: refusals since the sample before.
        waiting_bytes: bytes that wait for subscribers to read them.
        slow: subscribers dropped since then because they read too slowly.
        broker_p50_ms: half of the publishes took the broker no longer, in milliseconds; ``None`` without any.
        broker_p99_ms: as before, for 99 of 100.
        resumed: sessions that continued since then.
        not_resumed: session keys that did not continue a session since then.
        incomplete: answers with ``"complete": false`` since then.
        webhooks: events that wait for their endpoints, in the whole cluster.
    """

    at: float
    connections: int
    subscriptions: int
    publishes: float
    deliveries: float
    refusals: int
    waiting_bytes: int
    slow: int
    broker_p50_ms: float | None
    broker_p99_ms: float | None
    resumed: int
    not_resumed: int
    incomplete: int
    webhooks: int


class Sampler:
    """Takes a sample every ``INTERVAL_S`` seconds.

    Parameters:
        hub: the hub of the server.
        webhooks: the server's endpoints of webhooks.
        watch: the observer of the server.
        clock: returns seconds since 1970.

    Attributes:
        samples: the newest samples.
    """

    def __init__(
        self, hub: Hub, webhooks: Webhooks, watch: Watch, clock: Callable[[], float] = time.time
    ) -> None:
        self._hub = hub
        self._webhooks = webhooks
        self._watch = watch
        self._clock = clock
        self._before = self._totals()
        self._before_at = clock()
        self._timer: asyncio.TimerHandle | None = None
        self.samples: Feed[Sample] = Feed(KEPT_SAMPLES)

    def start(self) -> None:
        """Begin to take samples. Call this in the event loop of the hub."""
        self.take()
        self._timer = asyncio.get_running_loop().call_later(pause_s(self._clock()), self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def take(self) -> None:
        """Take one sample."""
        gauges, totals, now = self._hub.gauges(), self._totals(), self._clock()
        elapsed_s = max(now - self._before_at, 0.001)
        grown = [total - before for total, before in zip(totals, self._before, strict=True)]
        publishes, deliveries, refusals, slow, resumed, not_resumed, incomplete = grown
        self._before, self._before_at = totals, now
        times = sorted(self._watch.broker_times)
        self._watch.broker_times.clear()
        self.samples.add(
            Sample(
                at=round(now, 3),
                connections=gauges.connections,
                subscriptions=gauges.subscriptions,
                publishes=round(publishes / elapsed_s, 2),
                deliveries=round(deliveries / elapsed_s, 2),
                refusals=refusals,
                waiting_bytes=gauges.unsent_bytes,
                slow=slow,
                broker_p50_ms=_percentile_ms(times, 0.5),
                broker_p99_ms=_percentile_ms(times, 0.99),
                resumed=resumed,
                not_resumed=not_resumed,
                incomplete=incomplete,
                webhooks=sum(state.waiting for state in self._webhooks.states()),
            )
        )

    def _totals(self) -> tuple[int, ...]:
        """Counters that only grow."""
        counts = self._hub.counts
        return (
            counts.publishes[204],
            counts.deliveries,
            self._watch.refusals.end,
            counts.slow_subscribers,
            counts.resumed_sessions,
            counts.refused_sessions,
            counts.incomplete,
        )


def pause_s(now: float) -> float:
    """Seconds until the next sample. All nodes take theirs at the same times, so that they add up."""
    until = INTERVAL_S - now % INTERVAL_S
    return until if until >= INTERVAL_S / 2 else until + INTERVAL_S


def _percentile_ms(times: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted times in seconds, in milliseconds."""
    if not times:
        return None
    return round(times[max(0, math.ceil(share * len(times)) - 1)] * 1000, 3)
