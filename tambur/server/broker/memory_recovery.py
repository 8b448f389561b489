"""The memory of a single process for clients that lost their connection; it ends with the process."""

from __future__ import annotations

import heapq
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ...protocol.names import Kind
from ...protocol.session_keys import KEYS_OF_CONNECTION
from ..config import App, Limits
from ..history import Budgets, History
from . import AppKey, Publication, direct_log, is_private_log, private_log

_EPOCH_BYTES = 16


class MemoryRecovery:
    """Numbers publications, and keeps them.

    Parameters:
        apps: apps with their own rules for history.
        limits: the limits for all others.
        clock: seconds since 1970.
    """

    def __init__(
        self, apps: Iterable[App], limits: Limits, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self.epoch = secrets.token_bytes(_EPOCH_BYTES)
        self.place = self._now()
        self._budgets = Budgets(apps, limits, floor=self.place)
        self._session_ttl_s = limits.session_ttl_s
        self._max_used = limits.max_lost_sessions
        # For each session that was resumed, the number of the newest key that was used, how often it was
        # resumed, and until when older keys could be valid. The first one ends first.
        self._used: dict[tuple[AppKey, str], tuple[int, int, float]] = {}

    @property
    def realm(self) -> bytes:
        """Sessions end with the process, and the epoch does, too."""
        return self.epoch

    def keep(self, publication: Publication) -> Publication:
        """Give a message its place, and keep it."""
        app, kind, name, event, user_id, version, _, excluded, _ = publication
        self.place = max(self._now(), self.place + 1)
        placed = Publication(app, kind, name, event, user_id, version, self.place, excluded)
        if kind is Kind.PRIVATE:
            self._budgets.default(app).append(private_log(name), placed)
        else:
            history, log = self._history(app, name, user_id if kind is Kind.DIRECT else None)
            history.append(log, placed)
        return placed

    def reached(self, app: AppKey, log: str) -> int:  # noqa: ARG002 - one place for all logs
        return self.place

    def need(self, app: AppKey, log: str, user_id: str | None = None) -> None:
        history, name = self._history(app, log, user_id)
        history.need(name, self._now())

    def release(self, app: AppKey, log: str, user_id: str | None = None) -> None:
        history, name = self._history(app, log, user_id)
        history.release(name, self._now())

    def _history(self, app: AppKey, log: str, user_id: str | None = None) -> tuple[History, str]:
        """The history that holds a log, and the log's name there."""
        if user_id is not None:
            return self._budgets.direct(app), direct_log(log, user_id)
        if is_private_log(log):
            return self._budgets.default(app), log
        return self._budgets.of(app, log), log

    async def load(self, app: AppKey, log: str, place: int | None, user_id: str | None = None) -> None:
        pass  # everything is at hand

    def since(
        self, app: AppKey, log: str, place: int, user_id: str | None = None
    ) -> Sequence[Publication] | None:
        history, name = self._history(app, log)
        found = history.since(name, place, self._now())
        if user_id is None or found is None:
            return found
        history, name = self._history(app, log, user_id)
        direct = history.since(name, place, self._now())
        if direct is None:
            return None
        return list(heapq.merge(found, direct, key=lambda publication: publication.place))

    def newest_first(self, app: AppKey, stream: str) -> Iterator[Publication]:
        return self._budgets.of(app, stream).newest_first(stream, self._now())

    async def count_kept(self, app: AppKey, streams: Sequence[str]) -> Sequence[int]:
        return [sum(1 for _ in self.newest_first(app, stream)) for stream in streams]

    async def resume(self, app: AppKey, subscriber_id: str, number: int, place: int | None = None) -> int:  # noqa: ARG002
        now = self._clock()
        while self._used and (first := next(iter(self._used.items())))[1][2] <= now:
            del self._used[first[0]]
        used, resumes, _ = self._used.pop((app, subscriber_id), (0, 0, 0.0))
        if len(self._used) >= self._max_used:
            del self._used[next(iter(self._used))]
        is_valid = number >= used
        if is_valid:
            resumes = max(resumes, number // KEYS_OF_CONNECTION) + 1
            self.need(app, private_log(subscriber_id))
        self._used[app, subscriber_id] = max(used, number), resumes, now + self._session_ttl_s
        return resumes if is_valid else 0

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)
