"""Disconnected subscribers and users, and sessions that a disconnect has to end: section 9 of the protocol.

Times are in milliseconds since 1970, and arguments: nothing here reads a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from .broker import AppKey, BrokerUnavailableError
from .config import Limits

DISCONNECTED = "disconnected by the application"
"""The reason beside the close code."""

MARGIN_S = 60
"""How much longer a revocation is remembered than what it revokes could be valid, in seconds."""


class _Memory:
    """The revocations of names, for a limited time."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_ms = round(ttl_s * 1000)
        self._found: dict[tuple[AppKey, str], int] = {}  # with the time of each, the oldest first

    def get(self, app: AppKey, name: str) -> int | None:
        return self._found.get((app, name))

    def add(self, app: AppKey, name: str, at_ms: int) -> None:
        self._found[app, name] = max(at_ms, self._found.pop((app, name), 0))

    def of(self, app: AppKey) -> dict[str, int]:
        """The names of an app, with their times."""
        return {name: at_ms for (of, name), at_ms in self._found.items() if of == app}

    def expire(self, now_ms: int) -> list[AppKey]:
        """Forget the old ones, and return their apps."""
        expired = []
        for key, at_ms in self._found.items():
            if at_ms > now_ms - self._ttl_ms:
                break
            expired.append(key)
        for key in expired:
            del self._found[key]
        return [app for app, _ in expired]


class Revocations:
    """Revoked subscriber IDs and users, as a node knows them.

    Parameters:
        limits: give the number of revocations of each app, and how long sessions last.
    """

    def __init__(self, limits: Limits) -> None:
        self._max_count = limits.max_revocations
        self._subscribers = _Memory(subscriber_ttl_s(limits))
        self._users = _Memory(user_ttl_s(limits))
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
        return self._subscribers.get(app, subscriber_id) is not None

    def revoked_ms(self, app: AppKey, user_id: str) -> int:
        """When a user was revoked last; 0 for never."""
        return self._users.get(app, user_id) or 0

    def allows(self, app: AppKey, user_id: str, begun_ms: int) -> bool:
        """Whether a session may enable modes as a user.

        Parameters:
            begun_ms: when the subscriber ID of the session was made.
        """
        return begun_ms > self.revoked_ms(app, user_id)

    def all(self, app: AppKey, now_ms: int) -> tuple[dict[str, int], dict[str, int]]:
        """The revoked subscriber IDs and users of an app, with their times."""
        self._expire(now_ms)
        return self._subscribers.of(app), self._users.of(app)

    def _add(self, memory: _Memory, app: AppKey, name: str, at_ms: int) -> None:
        self._expire(at_ms)
        if memory.get(app, name) is None:
            self._counts[app] += 1
        memory.add(app, name, at_ms)

    def _expire(self, now_ms: int) -> None:
        for memory in (self._subscribers, self._users):
            for app in memory.expire(now_ms):
                self._counts[app] -= 1
                if not self._counts[app]:
                    del self._counts[app]


def subscriber_ttl_s(limits: Limits) -> float:
    """For how long a revoked subscriber ID is remembered, in seconds: its session gets no further keys."""
    return limits.session_ttl_s + MARGIN_S


def user_ttl_s(limits: Limits) -> float:
    """For how long a revoked user is remembered, in seconds: other sessions that began before go on."""
    return limits.session_max_s + MARGIN_S


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
        max_count: how many are remembered; the oldest are forgotten first. One with several users counts as
            that many.
    """

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._sessions: dict[tuple[AppKey, str], LostSession] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, app: AppKey, subscriber_id: str, session: LostSession, now_ms: int) -> None:
        """Remember a session."""
        self._pop((app, subscriber_id))
        self._sessions[app, subscriber_id] = session
        self._count += _count(session)
        while self._sessions:
            oldest = next(iter(self._sessions))
            if self._count <= self._max_count and self._sessions[oldest].until_ms > now_ms:
                break
            self._pop(oldest)

    def _pop(self, key: tuple[AppKey, str]) -> LostSession | None:
        found = self._sessions.pop(key, None)
        if found is not None:
            self._count -= _count(found)
        return found

    def remove(self, app: AppKey, subscriber_id: str, now_ms: int) -> LostSession | None:
        """Forget a session, and return it if it could still be resumed."""
        found = self._pop((app, subscriber_id))
        return found if found is not None and found.until_ms > now_ms else None

    def of_users(self, app: AppKey, users: Collection[str]) -> list[str]:
        """The subscriber IDs of the sessions with presence or direct mode as one of some users."""
        wanted = frozenset(users)
        return [
            subscriber_id
            for (of, subscriber_id), session in self._sessions.items()
            if not wanted.isdisjoint(session.users) and of == app
        ]


def _count(session: LostSession) -> int:
    return max(1, len(session.users))
