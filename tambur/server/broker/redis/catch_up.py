"""A node that lost Redis catches up: it reads its subscribers' logs from the place that it had reached."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...logs import line
from .. import AppKey, Deliver, Missed, Moved, Publication
from .link import Link
from .logs import NO_PLACE, Log, LogReader
from .recovery import RedisRecovery

logger = logging.getLogger("tambur.server")

LOGS_AT_ONCE = 100
"""Logs that one script reads; everything else in Redis waits for it."""


class Callbacks(NamedTuple):
    """The hub's part; :meth:`tambur.server.broker.Backend.start` explains them."""

    deliver: Deliver = lambda _: None
    missed: Missed = lambda _: None
    moved: Moved = lambda _, __: None


class _Missing:
    """The messages of one log after a place.

    Attributes:
        entries: newest first.
        last: the entries are all up to this place.
        upper: the place up to which entries are still to be read; ``None`` if there are none.
    """

    def __init__(self, since: int) -> None:
        self.since = since
        self.entries: list[Publication] = []
        self.floor = since
        self.last = 0
        self.upper: int | None = NO_PLACE
        self.has_moved = False


class CatchUp:
    """Reads what was published while a node had no link, and delivers it.

    Parameters:
        reader: reads the logs.
        recovery: knows the place that the node had reached.
    """

    def __init__(self, reader: LogReader, recovery: RedisRecovery) -> None:
        self._reader = reader
        self._recovery = recovery

    async def run(self, link: Link, logs: Iterable[Log], callbacks: Callbacks) -> None:
        """Deliver everything. For each log, ``recovery.ahead`` has the place up to which it was delivered.

        Once the node has reached a later place, the caller clears it. Until then, a link that fails does
        not lead to a second delivery.

        Raises:
            BrokerUnavailableError: this link failed, too; the next one continues.
        """
        all_logs = dict.fromkeys(logs)
        self._recovery.retain(all_logs)
        for some in _batches(all_logs):
            missing = await self._read(link, some)
            self._deliver(missing, callbacks)

    async def _read(self, link: Link, logs: Sequence[Log]) -> dict[Log, _Missing]:
        found = {log: _Missing(self._recovery.reached(*log)) for log in logs}
        while unread := [(log, m.since, m.upper) for log, m in found.items() if m.upper is not None]:
            read = await self._reader.read(link, unread)
            for log, part in read.parts.items():
                missing = found[log]
                missing.last = missing.last or read.last
                if part is None:
                    missing.has_moved, missing.upper = True, None
                    continue
                missing.entries += part.newest_first
                missing.floor = part.floor
                is_over = part.is_whole or part.floor <= missing.since
                missing.upper = None if is_over else part.floor
        return found

    def _deliver(self, found: Mapping[Log, _Missing], callbacks: Callbacks) -> None:
        lost: list[tuple[AppKey, str]] = []
        publications: list[Publication] = []
        for log, missing in found.items():
            self._recovery.ahead[log] = missing.last
            if missing.has_moved:
                callbacks.moved(log.app, log.name.removeprefix("private:"))
            elif missing.floor > missing.since:
                self._recovery.restart(log, missing.last)
                lost.append(log)
            else:
                publications += missing.entries
        if lost:
            logger.error(line("without Redis for too long, subscribers missed messages", logs=len(lost)))
            callbacks.missed(lost)
        for publication in sorted(publications, key=lambda publication: publication.place):
            callbacks.deliver(publication)


def _batches(logs: Iterable[Log]) -> Iterator[list[Log]]:
    """Some logs at once. Those of a stream come together, since its messages have an order."""
    together: dict[tuple[AppKey, str], list[Log]] = {}
    for log in logs:
        together.setdefault((log.app, log.name.partition("\n")[0]), []).append(log)
    batch: list[Log] = []
    for some in together.values():
        if batch and len(batch) + len(some) > LOGS_AT_ONCE:
            yield batch
            batch = []
        batch += some
    if batch:
        yield batch
