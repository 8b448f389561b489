"""Lost connections whose users stay present for a while (section 7 of the protocol)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator

from . import AppKey, Entry


class Lingering:
    """The entries of lost connections. Each ends later, or when a connection of its user takes its place.

    Parameters:
        end: ends the presence of an entry.
        max_users: how many entries linger at once; one more ends immediately.
    """

    def __init__(self, end: Callable[[Entry], None], *, max_users: int) -> None:
        self._end = end
        self._max_users = max_users
        self._timers: dict[Entry, asyncio.TimerHandle] = {}
        self._entries: dict[tuple[AppKey, str, str], list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._timers)

    @property
    def remaining_s(self) -> float:
        """In how many seconds the last entry ends."""
        return max(timer.when() for timer in self._timers.values()) - asyncio.get_running_loop().time()

    def begin(self, entry: Entry, linger_s: float) -> None:
        """Let an entry linger for so many seconds."""
        if len(self._timers) >= self._max_users:
            self._end(entry)
            return
        self._timers[entry] = asyncio.get_running_loop().call_later(linger_s, self._finish, entry)
        self._entries.setdefault(entry[:3], []).append(entry)

    def replace(self, app: AppKey, stream: str, user_id: str) -> None:
        """End one entry of a user, whose new connection is present by now."""
        if entries := self._entries.get((app, stream, user_id)):
            self._finish(entries[0])

    def end(self, app: AppKey, connection_ids: Collection[str]) -> None:
        """End the entries of some connections of an app."""
        of_them = [e for e in self._timers if e.app == app and e.subscriber_id in connection_ids]
        for entry in of_them:
            self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        self._timers.pop(entry).cancel()
        entries = self._entries[entry[:3]]
        entries.remove(entry)
        if not entries:
            del self._entries[entry[:3]]
        self._end(entry)
