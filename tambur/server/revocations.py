"""Disconnected subscribers and users, and sessions that a disconnect has to end: section 9 of the protocol.

Times are in milliseconds since 1970, and arguments: nothing here reads a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

from .broker import AppKey, BrokerUnavailableError
from .config import Limits

DISCONNECTED = "disconnected by the application"
"""The reason beside the close code."""

MARGIN_S = 60
"""How much longer a revocation is remembered than what it revokes could be valid, in seconds."""

K = TypeVar("K", bound=Hashable)


class _Times(Generic[K]):
    """When each key was revoked, for a limited time."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_ms = round(ttl_s * 1000)
        self._at_ms: dict[K, int] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._at_ms)

    def get(self, key: K) -> int | None:
        return self._at_ms.get(key)

    def add(self, key: K, at_ms: int) -> None:
        self._at_ms[key] = max(at_ms, self._at_ms.pop(key, 0))

    def expire(self, now_ms: int) -> Iterable[K]:
        """Forget the old ones and return their keys."""
        expired = []
        for key, at_ms in self._at_ms.items():
            if at_ms > now_ms - self._ttl_ms:
                break
            expired.append(key)
        for key in expired:
            del self._at_ms[key]
        return expired


class Revocations:
    """What a node knows of disconnects.

    Parameters:
        limits: give the number of revocations of each app, and how long sessions last.
    """

    def __init__(self, limits: Limits) -> None:
        self._max_count = limits.max_revocations
        # A session that was ended gets no further keys. Those of other sessions that began before a user was
        # revoked are renewed until the end.
        self._subscribers: _Times[tuple[AppKey, str]] = _Times(limits.session_ttl_s + MARGIN_S)
        self._users: _Times[tuple[AppKey, str]] = _Times(limits.session_max_s + MARGIN_S)
        self._counts: Counter[AppKey] = Counter()

    def require_room(self, app: AppKey, now_ms: int) -> None:
        """Check that the app may revoke something more.

        Raises:
            BrokerUnavailableError: if too many revocations are remembered.
        """
        self._expire(now_ms)
        if self._counts[app] >= self._max_count:
            raise BrokerUnavailableError(
                f"{self._max_count} disconnects are remembered, the most that max_revocations allows",
                retry_after_s=MARGIN_S,
            )

    def revoke_subscriber(self, app: AppKey, subscriber_id: str, at_ms: int) -> None:
        """End the session of a subscriber ID."""
        self._add(self._subscribers, app, subscriber_id, at_ms)

    def revoke_user(self, app: AppKey, user_id: str, at_ms: int) -> None:
        """End the modes as a user of all sessions so far."""
        self._add(self._users, app, user_id, at_ms)

    def is_ended(self, app: AppKey, subscriber_id: str) -> bool:
        """Whether the session of a subscriber ID was ended."""
        return self._subscribers.get((app, subscriber_id)) is not None

    def allows(self, app: AppKey, user_id: str, begun_ms: int) -> bool:
        """Whether a session may enable modes as a user.

        Parameters:
            begun_ms: when the subscriber ID of the session was made.
        """
        revoked_ms = self._users.get((app, user_id))
        return revoked_ms is None or begun_ms > revoked_ms

    def _add(self, times: _Times[tuple[AppKey, str]], app: AppKey, name: str, at_ms: int) -> None:
        if times.get((app, name)) is None:
            self._counts[app] += 1
        times.add((app, name), at_ms)

    def _expire(self, now_ms: int) -> None:
        for times in (self._subscribers, self._users):
            for app, _ in times.expire(now_ms):
                self._counts[app] -= 1
                if not self._counts[app]:
                    del self._counts[app]


class LostSession(NamedTuple):
    """A session without a connection.

    Attributes:
        connection_id: names its last connection in presence.
        users: who had presence or direct mode in it.
        until_ms: when it can no longer be resumed.
    """

    connection_id: str
    users: frozenset[str]
    until_ms: int


class LostSessions:
    """The sessions whose connection to this node was lost, and that can still be resumed.

    Parameters:
        max_count: how many are remembered; the oldest are forgotten first.
    """

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._sessions: dict[tuple[AppKey, str], LostSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, app: AppKey, subscriber_id: str, session: LostSession, now_ms: int) -> None:
        """Remember a session."""
        self._sessions.pop((app, subscriber_id), None)
        self._sessions[app, subscriber_id] = session
        while self._sessions:
            oldest = next(iter(self._sessions))
            if len(self) <= self._max_count and self._sessions[oldest].until_ms > now_ms:
                break
            del self._sessions[oldest]

    def remove(self, app: AppKey, subscriber_id: str, now_ms: int) -> LostSession | None:
        """Forget a session, and return it if it could still be resumed."""
        found = self._sessions.pop((app, subscriber_id), None)
        return found if found is not None and found.until_ms > now_ms else None

    def of_user(self, app: AppKey, user_id: str) -> list[str]:
        """The subscriber IDs of the sessions with presence or direct mode as a user."""
        return [
            subscriber_id
            for (of, subscriber_id), session in self._sessions.items()
            if of == app and user_id in session.users
        ]
