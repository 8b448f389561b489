"""The presence of one node's subscribers: who of them is where, and whom they have been told is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ....protocol.messages import encode_presence
from ....protocol.names import Kind
from .. import AppKey, Presence, Publication


class Entry(NamedTuple):
    """The presence of one connection."""

    app: AppKey
    stream: str
    user_id: str
    subscriber_id: str


class Pictures:
    """All presence subscribers of a stream on a node have been told the same: the stream's picture.

    What arrives is held against the picture, so that nobody is told twice that a user is there, or is not,
    even where news of it comes twice, or was missed and is made up for.
    """

    def __init__(self) -> None:
        self._version = 0
        self._entries: dict[tuple[AppKey, str], set[Entry]] = {}
        self._users: dict[tuple[AppKey, str], dict[str, None]] = {}  # a set that keeps the order

    def __iter__(self) -> Iterator[Entry]:
        for entries in self._entries.values():
            yield from entries

    def streams(self) -> list[tuple[AppKey, str]]:
        """Where somebody of this node is."""
        return list(self._entries)

    def add(self, entry: Entry) -> None:
        """Somebody of this node is there; he is told all that the picture holds."""
        self._entries.setdefault((entry.app, entry.stream), set()).add(entry)

    def remove(self, entry: Entry) -> bool:
        """Somebody of this node has gone; false if he was not there."""
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
        """A user joined or left; ``None`` if all have been told."""
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
        """Hold the picture against who is there now; returns what differed, which all are to be told.

        Parameters:
            downs: whether those who are not there are told down; otherwise they stay for the time being.
        """
        if (app, stream) not in self._entries:
            return []
        there = dict.fromkeys(user_ids)
        users = self._users.setdefault((app, stream), there)
        gone = [user_id for user_id in users if user_id not in there] if downs else []
        told = [self.event(app, stream, user_id, up=False) for user_id in gone]
        told += [self.event(app, stream, user_id, up=True) for user_id in there]
        return [publication for publication in told if publication is not None]

    def presence(self, app: AppKey, stream: str) -> Presence:
        """The picture as it is now."""
        return Presence(tuple(self._users[app, stream]), self._version)
