"""The console's notes while the server works: refusals, and how long the broker takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..logs import MAX_VALUE_CODE_POINTS, mask_subscriber_ids
from .feed import Feed

KEPT_REFUSALS = 200

KEPT_TIMES = 4096
"""Of how many publishes between two samples the broker's time is kept."""


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

    Parameters:
        clock: returns seconds since 1970.

    Attributes:
        refusals: the newest refusals.
        broker_times: seconds that the broker took, for the publishes since the last sample.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.refusals: Feed[Refusal] = Feed(KEPT_REFUSALS)
        self.broker_times: deque[float] = deque(maxlen=KEPT_TIMES)

    def refused(self, event: str, facts: Mapping[str, object]) -> None:
        """See :meth:`~tambur.server.counters.Observer.refused`."""
        shown = {name: _shown(value) for name, value in facts.items() if value is not None}
        self.refusals.add(Refusal(self._clock(), event, shown))

    def broker_answered(self, seconds: float) -> None:
        """See :meth:`~tambur.server.counters.Observer.broker_answered`."""
        self.broker_times.append(seconds)


def _shown(value: object) -> str:
    text = mask_subscriber_ids(str(value))
    return text if len(text) <= MAX_VALUE_CODE_POINTS else f"{text[:MAX_VALUE_CODE_POINTS]}..."
