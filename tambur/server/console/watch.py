"""The console's notes while the server works: refusals, times of the broker, and traces."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from ...protocol.names import mask_subscriber_ids
from ..broker import AppKey, Outcome, Publication, Published
from ..counters import Counts
from ..logs import MAX_VALUE_CODE_POINTS
from ..stream import Stream
from .feed import Feed
from .trace import Trace

KEPT_REFUSALS = 200

KEPT_TIMES = 4096
"""Of how many publishes between two samples the broker's time is kept."""


KEPT_DROPPED = 32
"""How many of the subscribers that were dropped last have their users noted: those of one turn."""

MAX_TRACES = 16
"""How many streams viewers may follow at once."""


class TooManyTracesError(Exception):
    """Viewers follow as many streams as they may."""


class Refusal(NamedTuple):
    """A refusal, or a subscriber that was closed.

    Attributes:
        at: when, in seconds since 1970.
        event: the event of the log line.
        facts: its facts as text, without subscriber IDs.
    """

    at: float
    event: str
    facts: dict[str, str]


class Watch:
    """The server's observer, see :class:`~tambur.server.counters.Observer`.

    It observes while a stream is followed, and once it is started, always.

    Parameters:
        counts: what it observes.
        clock: returns seconds since 1970.

    Attributes:
        is_tracing: whether a viewer follows a stream, here or on another node.
        refusals: the newest refusals.
        broker_times: seconds that the broker took, for the publishes since the last sample.
    """

    def __init__(self, counts: Counts, clock: Callable[[], float] = time.time) -> None:
        self._counts = counts
        self._clock = clock
        self._is_started = False
        self.is_tracing = False
        self._traces: dict[tuple[AppKey, str], Trace] = {}
        self._dropped: deque[str] = deque(maxlen=KEPT_DROPPED)
        self.refusals: Feed[Refusal] = Feed(KEPT_REFUSALS)
        self.broker_times: deque[float] = deque(maxlen=KEPT_TIMES)

    def start(self) -> None:
        """Observe from now on, for the console of this node."""
        self._is_started = True
        self._counts.observer = self

    def refused(self, event: str, facts: Mapping[str, object]) -> None:
        """See :meth:`~tambur.server.counters.Observer.refused`."""
        shown = {name: _shown(value) for name, value in facts.items() if value is not None}
        self.refusals.add(Refusal(self._clock(), event, shown))

    def published(
        self, publication: Publication, published: Published | None, check_s: float | None, broker_s: float
    ) -> None:
        """See :meth:`~tambur.server.counters.Observer.published`."""
        if published is not None:
            self.broker_times.append(broker_s)
        trace = self._traces.get((publication.app, publication.name)) if self.is_tracing else None
        if trace is None:
            return
        if published is None:
            trace.claim(publication, at=self._clock())
        elif published.outcome is Outcome.DELIVERED:
            trace.claim(
                publication,
                at=self._clock(),
                place=published.place,
                nodes=published.nodes,
                check_s=check_s,
                broker_s=broker_s,
            )

    def delivering(self, publication: Publication, stream: Stream) -> None:
        """See :meth:`~tambur.server.counters.Observer.delivering`."""
        trace = self._traces.get((publication.app, publication.name))
        if trace is not None:
            trace.stream = stream
            count = stream.count_receivers(publication)
            trace.deliver(publication, stream.end, count, at=self._clock(), now=time.perf_counter())

    def dropped(self, users: Collection[str]) -> None:
        """See :meth:`~tambur.server.counters.Observer.dropped`."""
        self._dropped.append(_shown(", ".join(sorted(users))))

    def wrote(self, stream: Stream, began: float, slow_subscribers: int) -> None:
        """See :meth:`~tambur.server.counters.Observer.wrote`."""
        trace = next((trace for trace in self._traces.values() if trace.stream is stream), None)
        if trace is not None:
            dropped = list(self._dropped)[-slow_subscribers:] if slow_subscribers else []
            trace.write(
                began=began,
                now=time.perf_counter(),
                writing=stream.writing,
                written=stream.written,
                cut_off=slow_subscribers,
                cut_off_users=[users for users in dropped if users],
            )

    def require_room(self, app: AppKey, name: str) -> None:
        """Check that a stream can be followed.

        Raises:
            TooManyTracesError: if ``MAX_TRACES`` other streams are followed.
        """
        if (app, name) not in self._traces and len(self._traces) >= MAX_TRACES:
            raise TooManyTracesError(f"{MAX_TRACES} streams are followed already")

    @contextlib.contextmanager
    def following(self, app: AppKey, name: str) -> Iterator[Trace]:
        """Trace a stream while a viewer follows it. All its viewers share one trace,
        those on other nodes, too.

        Raises:
            TooManyTracesError: as for :meth:`require_room`.
        """
        self.require_room(app, name)
        trace = self._traces.setdefault((app, name), Trace())
        trace.viewers += 1
        self.is_tracing = True
        self._counts.observer = self
        try:
            yield trace
        finally:
            trace.viewers -= 1
            if not trace.viewers:
                del self._traces[app, name]
                self.is_tracing = bool(self._traces)
                if not self.is_tracing and not self._is_started:
                    self._counts.observer = None


def _shown(value: object) -> str:
    text = mask_subscriber_ids(str(value))
    return text if len(text) <= MAX_VALUE_CODE_POINTS else f"{text[:MAX_VALUE_CODE_POINTS]}..."
