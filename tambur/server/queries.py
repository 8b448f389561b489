"""Queries of apps about their streams: section 9 of the protocol."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..protocol.messages import message_json
from .broker import AppKey, Backend, Publication
from .cluster import Cluster
from .config import App
from .extended_hub import ExtendedHub

MAX_HISTORY_BYTES = 4 * 1024 * 1024
"""The most bytes of an answer with kept messages. One message is in it in any case."""

MESSAGE_BYTES = 128
"""The most bytes that an answer has for a message, beside its text."""


class Users(NamedTuple):
    """Some of the users present on a stream, sorted.

    Attributes:
        user_ids: the users.
        after: the last of them, if there are more; otherwise ``None``.
    """

    user_ids: list[str]
    after: str | None


class StreamInfo(NamedTuple):
    """A stream with subscribers.

    Attributes:
        stream: its name.
        subscribers: how many connections are subscribed.
        users: how many users are present.
    """

    stream: str
    subscribers: int
    users: int


class Streams(NamedTuple):
    """Some of an app's streams, sorted by name.

    Attributes:
        streams: the streams.
        after: the name of the last one, if there are more; otherwise ``None``.
    """

    streams: list[StreamInfo]
    after: str | None


class KeptMessage(NamedTuple):
    """A kept message.

    Attributes:
        publication: the message as it was published.
        json: its text as a JSON string.
        position: its position.
    """

    publication: Publication
    json: bytes
    position: str


class History(NamedTuple):
    """Kept messages of a stream, oldest first.

    Attributes:
        messages: the messages.
        position: where to continue.
        complete: whether nothing after the given position is lost.
        more: whether there are more: newer ones if a position was given, otherwise older ones.
    """

    messages: list[KeptMessage]
    position: str
    complete: bool
    more: bool


class Queries:
    """Answers the questions of apps about their streams.

    Every method may raise :class:`~tambur.server.broker.BrokerUnavailableError`.

    Parameters:
        backend: knows the present users and the kept messages.
        hub: the subscribers of this node.
        cluster: the other nodes.
    """

    def __init__(self, backend: Backend, hub: ExtendedHub, cluster: Cluster) -> None:
        self._backend = backend
        self._hub = hub
        self._cluster = cluster
        cluster.answers["streams"] = self._streams_here

    async def users(self, app: App, stream: str, *, limit: int, after: str = "") -> Users:
        """The users present on a stream, those after ``after``, at most ``limit``."""
        present = await self._backend.presence.users(app.key, stream)
        found, more = _first(limit, (user_id for user_id in present if user_id > after))
        return Users(found, found[-1] if more else None)

    async def streams(self, app: App, *, prefix: str, limit: int, after: str = "") -> Streams:
        """The streams with subscribers whose names begin with ``prefix``, those after ``after``."""
        subscribers = Counter(await self._streams_here(app.key, prefix, limit, after))
        for answer in await self._cluster.ask_all("streams", app.key, prefix, limit, after):
            subscribers.update(answer)
        names, more = _first(limit, subscribers)
        users = await self._backend.presence.count_users(app.key, names)
        streams = [StreamInfo(name, subscribers[name], users[i]) for i, name in enumerate(names)]
        return Streams(streams, names[-1] if more else None)

    async def _streams_here(self, app: AppKey, prefix: str, limit: int, after: str) -> dict[str, int]:
        """The first streams of this node, one more than the limit, with their subscribers."""
        return await self._hub.subscribers(app, prefix, after, limit + 1)

    async def history(self, app: App, stream: str, *, limit: int, since: str | None) -> History:
        """The kept messages of a stream without direct ones: the newest, or those after a position.

        Parameters:
            since: the position; ``None`` for the newest messages.
        """
        async with self._hub.used(app.key, stream):
            return await self._history(app, stream, limit, since)

    async def _history(self, app: App, stream: str, limit: int, since: str | None) -> History:
        recovery = self._hub.recovery
        if since is None:
            await recovery.load(app.key, stream, None)
            newest = recovery.newest_first(app.key, stream)
            found, more = self._some(app, stream, newest, limit)
            found.reverse()
            return History(found, self._current_position(app, stream), complete=True, more=more)
        place = app.positions.decode(stream, recovery.epoch, since)
        later = None
        if place is not None:
            await recovery.load(app.key, stream, place)
            later = recovery.since(app.key, stream, place)
        if later is None:
            return History([], self._current_position(app, stream), complete=False, more=False)
        found, more = self._some(app, stream, iter(later), limit)
        position = found[-1].position if more else self._current_position(app, stream)
        return History(found, position, complete=True, more=more)

    def _current_position(self, app: App, stream: str) -> str:
        return self._position(app, stream, self._hub.recovery.reached(app.key, stream))

    def _position(self, app: App, stream: str, place: int) -> str:
        return app.positions.encode(stream, self._hub.recovery.epoch, place)

    def _some(
        self, app: App, stream: str, publications: Iterator[Publication], limit: int
    ) -> tuple[list[KeptMessage], bool]:
        """The first publications within the limits, and whether there are more."""
        found: list[KeptMessage] = []
        size = MESSAGE_BYTES  # for what is around the messages
        for publication in publications:
            text = message_json(publication.kind, stream, publication.event)
            size += len(text) + MESSAGE_BYTES
            if len(found) == limit or (found and size > MAX_HISTORY_BYTES):
                return found, True
            found.append(KeptMessage(publication, text, self._position(app, stream, publication.place)))
        return found, False


def _first(limit: int, names: Iterable[str]) -> tuple[list[str], bool]:
    """The first names in sorted order, and whether there are more."""
    found = heapq.nsmallest(limit + 1, names)
    return found[:limit], len(found) > limit
