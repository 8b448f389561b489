"""Kept messages in the memory of a process: logs, and the places up to which they may have lost messages.

docs/explanation/recovery.md explains the terms. Nothing here reads a clock: a place is a number that grows
with every publication, and is the time in microseconds since 1970.
"""

from __future__ import annotations

import heapq
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence

from .broker import AppKey, Publication, is_direct_log, is_private_log
from .config import App, Limits

ENTRY_BYTES = 192
"""The size of an entry without its event, in bytes."""

LOG_BYTES = 400
"""The size of a log without its entries and twice its name, in bytes."""

QUIET_SHARE = 4
"""Logs that are known only for their floor take at most this share of the bytes: a quarter.

Subscribing to any name makes a log known, so without a limit of their own they could push out messages.
"""


DIRECT_SHARE = 8
"""Direct messages take at most this share of an app's bytes: an eighth."""

MIN_HEAP = 64
"""Entries that a heap may have, however few logs there are."""

_US = 1_000_000  # microseconds in a second


class Budgets:
    """Which history keeps the messages of a stream, as the configuration says.

    Parameters:
        apps: the apps with their own histories for some streams. Other apps are added on first use.
        limits: the limits for all other streams.
        floor: the floor of all logs at the beginning.
    """

    def __init__(self, apps: Iterable[App], limits: Limits, *, floor: int) -> None:
        self._limits = limits
        self._floor = floor
        self._own = {
            app.key: [
                (kept, self._history(kept.messages, kept.ttl_s, kept.max_bytes)) for kept in app.history
            ]
            for app in apps
            if app.history
        }
        self._default: dict[AppKey, History] = {}
        self._direct: dict[AppKey, History] = {}

    def of(self, app: AppKey, stream: str) -> History:
        """The history of a stream's messages."""
        for kept, history in self._own.get(app, ()):
            if kept.matches(stream):
                return history
        return self.default(app)

    def default(self, app: AppKey) -> History:
        """The history of private messages, and of streams that the app's own histories don't name."""
        history = self._default.get(app)
        if history is None:
            history = self._default[app] = self._history(
                self._limits.history_messages, self._limits.history_ttl_s, self._limits.max_history_bytes
            )
        return history

    def direct(self, app: AppKey) -> History:
        """The history of direct messages."""
        history = self._direct.get(app)
        if history is None:
            history = self._direct[app] = self._history(
                self._limits.history_messages,
                self._limits.history_ttl_s,
                self._limits.max_history_bytes // DIRECT_SHARE,
            )
        return history

    def holding(self, app: AppKey, log: str) -> History:
        """The history of a log, by the log's name."""
        if is_direct_log(log):
            return self.direct(app)
        return self.default(app) if is_private_log(log) else self.of(app, log)

    def _history(self, messages: int, ttl_s: float, max_bytes: int) -> History:
        return History(
            max_messages=messages,
            ttl=round(ttl_s * _US),
            max_bytes=max_bytes,
            position_ttl=round(self._limits.position_ttl_s * _US),
            floor=self._floor,
        )


class _Log:
    """One log.

    Attributes:
        entries: oldest first.
        floor: the highest place that the log may have lost.
        needs: how many times :meth:`History.need` was called, and :meth:`History.release` was not.
        is_whole: whether it lost nothing but what its limits of messages and of age forbid.
    """

    __slots__ = ("entries", "floor", "is_whole", "needs")

    def __init__(self, floor: int) -> None:
        self.entries: list[Publication] = []
        self.floor = floor
        self.needs = 0
        self.is_whole = False


class History:
    """The logs of one budget, by name.

    A log is *known* while it has messages, while it is needed, and for ``position_ttl`` after both ended.
    In that time it is *quiet*. All logs that are not known share one floor.

    Parameters:
        max_messages: limit of one log; 0 keeps no messages.
        ttl: how long a message is kept, in microseconds.
        max_bytes: limit of all logs with messages and all quiet ones together. Other logs do not count.
        position_ttl: how long a log is quiet before it is forgotten, in microseconds.
        floor: the floor of all logs at the beginning.
    """

    def __init__(
        self, *, max_messages: int, ttl: int, max_bytes: int, position_ttl: int, floor: int = 0
    ) -> None:
        self._max_messages = max_messages
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._position_ttl = position_ttl
        self._floor = floor
        self._logs: dict[str, _Log] = {}
        # Each log with messages, with the place of its first message or of an earlier one. Some are out of
        # date: those of logs without messages, and second ones of a log.
        self._oldest: list[tuple[int, str]] = []
        self._kept_bytes = 0
        # Each quiet log, with the time of its last change: the first one is forgotten first.
        self._quiet: dict[str, int] = {}
        self._quiet_bytes = 0

    @property
    def bytes(self) -> int:
        """How many bytes count towards the limit, by estimate."""
        return self._kept_bytes + self._quiet_bytes

    def __len__(self) -> int:
        """How many logs are known."""
        return len(self._logs)

    def append(self, name: str, publication: Publication) -> None:
        """Keep a message. Its place must be above all earlier ones."""
        now = publication.place
        self.tidy(now)
        log = self._known(name)
        if self._max_messages:
            if not log.entries:
                self._wake(name)
                heapq.heappush(self._oldest, (now, name))
                self._kept_bytes += _log_size(name)
            log.entries.append(publication)
            self._kept_bytes += _size(publication)
            if len(log.entries) > self._max_messages:
                self._lose(log, 1)
        else:
            log.floor = now
            self._wake(name)
            self._rest(name, log, now)
        self._evict(now)

    def since(self, name: str, place: int, now: int) -> list[Publication] | None:
        """The publications of a log after a place, oldest first.

        Returns:
            ``None`` if a publication after the place may be lost.
        """
        self.tidy(now)
        log = self._logs.get(name)
        if place < (self._floor if log is None else log.floor):
            return None
        return [] if log is None else log.entries[bisect(log.entries, place, key=_place) :]

    def newest_first(self, name: str, now: int) -> Iterator[Publication]:
        """All kept messages of a log, from the newest to the oldest."""
        self.tidy(now)
        log = self._logs.get(name)
        return iter(()) if log is None else reversed(log.entries)

    def need(self, name: str, now: int) -> None:
        """Keep the log known while it has a subscriber; see :meth:`release`."""
        self.tidy(now)
        self._known(name).needs += 1
        self._wake(name)

    def release(self, name: str, now: int) -> None:
        """Undo :meth:`need`."""
        log = self._logs[name]
        log.needs -= 1
        self._rest(name, log, now)
        self._evict(now)

    # Copies of logs that are kept elsewhere

    def __contains__(self, name: str) -> bool:
        return name in self._logs

    def begin(self, name: str, floor: int) -> None:
        """Know a log, in which everything above a place is appended from now on, until :meth:`drop`."""
        log = self._known(name)
        log.floor = floor
        log.needs = 1

    def drop(self, name: str) -> None:
        """Forget a log. Its copy elsewhere remains."""
        log = self._logs.pop(name, None)
        if log is not None and log.entries:
            self._kept_bytes -= _log_size(name) + sum(map(_size, log.entries))
        self._renew_oldest()

    def floor(self, name: str) -> int:
        """The floor of a log."""
        log = self._logs.get(name)
        return self._floor if log is None else log.floor

    def is_whole(self, name: str) -> bool:
        """Whether no older messages of a log are kept elsewhere."""
        log = self._logs.get(name)
        return log is not None and log.is_whole

    def extend(self, name: str, publications: Sequence[Publication], floor: int, *, is_whole: bool) -> None:
        """Put older messages before those of a log, down to a floor.

        Parameters:
            publications: oldest first, up to the present floor of the log.
            is_whole: whether no older messages are kept elsewhere.
        """
        log = self._logs[name]
        log.floor, log.is_whole = floor, is_whole
        if publications:
            if not log.entries:
                self._kept_bytes += _log_size(name)
            log.entries[:0] = publications
            self._kept_bytes += sum(map(_size, publications))
            heapq.heappush(self._oldest, (publications[0].place, name))
        self._renew_oldest()

    def _renew_oldest(self) -> None:
        """Drop what is out of date in the heap, if it may be the most of it."""
        if len(self._oldest) > 2 * len(self._logs) + MIN_HEAP:
            self._oldest = [(log.entries[0].place, name) for name, log in self._logs.items() if log.entries]
            heapq.heapify(self._oldest)

    def tidy(self, now: int) -> None:
        """Drop expired messages, and forget logs that have been quiet for ``position_ttl``."""
        expired = now - self._ttl
        # A place in the heap may be too low, never too high: mostly, this look suffices.
        while self._oldest and self._oldest[0][0] <= expired:
            oldest = self._oldest_log()
            if oldest is None or self._oldest[0][0] > expired:
                break
            self._lose_oldest(oldest, bisect(oldest.entries, expired, key=_place), now)
        forgotten = now - self._position_ttl
        while self._quiet and next(iter(self._quiet.values())) <= forgotten:
            self._forget()

    # States of logs

    def _known(self, name: str) -> _Log:
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = _Log(self._floor)
        return log

    def _wake(self, name: str) -> None:
        """Mark a log as no longer quiet."""
        if self._quiet.pop(name, None) is not None:
            self._quiet_bytes -= _log_size(name)

    def _rest(self, name: str, log: _Log, now: int) -> None:
        """Mark a log as quiet if it has neither messages nor subscribers."""
        if not log.entries and not log.needs:
            self._quiet[name] = now
            self._quiet_bytes += _log_size(name)

    def _forget(self) -> None:
        """Forget the log that has been quiet for the longest time."""
        name = next(iter(self._quiet))
        self._wake(name)
        self._floor = max(self._floor, self._logs.pop(name).floor)

    # Losses

    def _oldest_log(self) -> _Log | None:
        """The log with the oldest message of all."""
        while self._oldest:
            place, name = self._oldest[0]
            log = self._logs.get(name)
            if log is None or not log.entries:
                heapq.heappop(self._oldest)
            elif log.entries[0].place == place:
                return log
            else:
                heapq.heapreplace(self._oldest, (log.entries[0].place, name))
        return None

    def _lose_oldest(self, log: _Log, count: int, now: int) -> None:
        """Drop messages of the log with the oldest one."""
        self._lose(log, count)
        if not log.entries:
            _, name = heapq.heappop(self._oldest)
            self._kept_bytes -= _log_size(name)
            self._rest(name, log, now)

    def _lose(self, log: _Log, count: int) -> None:
        lost = log.entries[:count]
        del log.entries[:count]
        log.floor = lost[-1].place
        self._kept_bytes -= sum(map(_size, lost))

    def _evict(self, now: int) -> None:
        """Drop the oldest messages or quiet logs until the limits are met."""
        while True:
            if self._quiet_bytes * QUIET_SHARE > self._max_bytes:
                self._forget()
            elif self.bytes > self._max_bytes and (oldest := self._oldest_log()) is not None:
                oldest.is_whole = False
                self._lose_oldest(oldest, 1, now)
            else:
                break


def _place(publication: Publication) -> int:
    return publication.place


def _size(publication: Publication) -> int:
    return len(publication.event) + ENTRY_BYTES


def _log_size(name: str) -> int:
    return LOG_BYTES + 2 * len(name)
