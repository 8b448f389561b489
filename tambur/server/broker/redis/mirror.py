"""Presence as this node's subscribers know it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ....protocol.messages import encode_presence
from ....protocol.names import Kind
from .. import AppKey, Entry, PresentUsers, Publication


class PresenceMirror:
    """The users of each stream, as this node has told them to its subscribers.

    All presence subscribers of a stream on a node know the same users. News from Redis is compared with
    them. So a subscriber receives no event twice, even if the news comes twice or after an outage.
    """

    def __init__(self) -> None:
        self._version = 0
        self._entries: dict[tuple[AppKey, str], set[Entry]] = {}
        self._users: dict[tuple[AppKey, str], dict[str, None]] = {}  # a set that keeps the order

    def __iter__(self) -> Iterator[Entry]:
        """The local connections with presence."""
        for entries in self._entries.values():
            yield from entries

    def streams(self) -> list[tuple[AppKey, str]]:
        """The streams on which a local connection has presence."""
        return list(self._entries)

    def add(self, entry: Entry) -> None:
        """Add a local connection; the caller sends it the user list."""
        self._entries.setdefault((entry.app, entry.stream), set()).add(entry)

    def remove(self, entry: Entry) -> bool:
        """Remove a local connection; false if it is unknown."""
        key = entry.app, entry.stream
        entries = self._entries.get(key, set())
        if entry not in entries:
            return False
        entries.remove(entry)
        if not entries:
            del self._entries[key]
            self._users.pop(key, None)
        return True

    def event(self, app: AppKey, stream: str, user_id: str, *, up: bool) -> Publication | None:
        """Note that a user joined or left; ``None`` if the subscribers know already."""
        users = self._users.get((app, stream))
        if users is not None:
            if up == (user_id in users):
                return None
            if up:
                users[user_id] = None
            else:
                del users[user_id]
        self._version += 1
        event = encode_presence(stream, user_id, up=up)
        return Publication(app, Kind.PRESENCE, stream, event, user_id, self._version)

    def compare(self, app: AppKey, stream: str, user_ids: Iterable[str], *, downs: bool) -> list[Publication]:
        """Store the present users; return the differences, for all subscribers.

        Parameters:
            downs: whether users that are not present any more leave; otherwise they stay for now.
        """
        if (app, stream) not in self._entries:
            return []
        present = dict.fromkeys(user_ids)
        users = self._users.setdefault((app, stream), present)
        gone = [user_id for user_id in users if user_id not in present] if downs else []
        events = [self.event(app, stream, user_id, up=False) for user_id in gone]
        events += [self.event(app, stream, user_id, up=True) for user_id in present]
        return [publication for publication in events if publication is not None]

    def present(self, app: AppKey, stream: str) -> PresentUsers:
        """The users as of now."""
        return PresentUsers(tuple(self._users[app, stream]), self._version)
