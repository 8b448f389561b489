"""What an app asks about its streams: section 9 of the protocol."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..protocol import close_codes
from ..protocol.messages import message_json
from .broker import AppKey, Backend, Publication
from .config import App
from .extended_hub import ExtendedHub
from .extension import now_ms
from .revocations import DISCONNECTED

MAX_HISTORY_BYTES = 4 * 1024 * 1024
"""The most bytes of an answer with kept messages. One message is in it in any case."""

TIMEOUT_S = 2.0
"""How long another node may take to answer, in seconds."""

QUESTION = b"query\n"
"""How the questions of this part to other nodes begin."""

CLOSED_PER_TURN = 32
"""How many connections are closed in one turn of the event loop."""

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
    """

    def __init__(self, backend: Backend, hub: ExtendedHub) -> None:
        self._backend = backend
        self._hub = hub

    async def users(self, app: App, stream: str, *, limit: int, after: str = "") -> Users:
        """The users present on a stream, those after ``after``, at most ``limit``."""
        present = await self._backend.presence.users(app.key, stream)
        found, more = _first(limit, (user_id for user_id in present if user_id > after))
        return Users(found, found[-1] if more else None)

    async def streams(self, app: App, *, prefix: str, limit: int, after: str = "") -> Streams:
        """The streams with subscribers whose names begin with ``prefix``, those after ``after``."""
        here = self._streams_here(app.key, prefix, limit, after)
        subscribers = Counter(here)
        for answer in await self._ask_all("streams", app.key, prefix, limit, after):
            subscribers.update(answer)
        names, more = _first(limit, subscribers)
        users = await self._backend.presence.count_users(app.key, names)
        streams = [StreamInfo(name, subscribers[name], users[i]) for i, name in enumerate(names)]
        return Streams(streams, names[-1] if more else None)

    def _streams_here(self, app: AppKey, prefix: str, limit: int, after: str) -> dict[str, int]:
        """The first streams of this node, one more than the limit, with their subscribers."""
        subscribers = self._hub.subscribers(app, prefix, after)
        return {name: subscribers[name] for name in heapq.nsmallest(limit + 1, subscribers)}

    async def disconnect(self, app: App, *, subscriber_id: str | None, user_id: str | None) -> int:
        """End the sessions of a subscriber or of a user, and hold that against a return.

        Parameters:
            subscriber_id: the subscriber; ``None`` for a user.
            user_id: the user; ``None`` for a subscriber.

        Returns:
            How many connections and lost sessions were ended.
        """
        self._hub.revocations.require_room(app.key, now_ms())
        ended = await self._end(app.key, subscriber_id, user_id)
        for answer in await self._ask_all("disconnect", app.key, subscriber_id, user_id):
            ended.update(answer)
        return len(ended)

    async def _end(self, app: AppKey, subscriber_id: str | None, user_id: str | None) -> set[str]:
        """End sessions on this node; return their subscriber IDs."""
        hub, at_ms = self._hub, now_ms()
        revocations, lost_sessions = hub.revocations, hub.lost_sessions
        if user_id is not None:
            revocations.revoke_user(app, user_id, at_ms)
            wanted = {*hub.subscribers_as(app, user_id), *lost_sessions.of_user(app, user_id)}
        else:
            assert subscriber_id is not None
            wanted = {subscriber_id}
        for each in wanted:
            revocations.revoke_subscriber(app, each, at_ms)
        ended, lingering = set(), set()
        for number, each in enumerate(wanted, 1):
            if (outbox := hub.outbox(app, each)) is not None:
                outbox.close(close_codes.DISCONNECTED, DISCONNECTED)
                ended.add(each)
            if (lost := lost_sessions.remove(app, each, at_ms)) is not None:
                lingering.add(lost.connection_id)
                ended.add(each)
            if number % CLOSED_PER_TURN == 0:
                await asyncio.sleep(0)
        if lingering:
            self._backend.presence.end_lingering(app, lingering)
        # Sessions that begin after the answer begin in a later millisecond.
        await asyncio.sleep(0.002)
        return ended

    async def _ask_all(self, word: str, app: AppKey, *arguments: object) -> list[Any]:
        """What all other nodes answer to a question of :meth:`answer`."""
        question = QUESTION + json.dumps([word, *app, *arguments]).encode()
        answers = await self._backend.calls.ask_all(question, timeout_s=TIMEOUT_S)
        return [json.loads(answer) for answer in answers]

    async def answer(self, question: bytes) -> bytes:
        """Answer a question of another node, for this node alone."""
        word, api_key, app_id, *arguments = json.loads(question.removeprefix(QUESTION))
        app = AppKey(api_key, app_id)
        if word == "streams":
            return json.dumps(self._streams_here(app, *arguments)).encode()
        return json.dumps(sorted(await self._end(app, *arguments))).encode()

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
            return History(found, self._position(app, stream, recovery.place), complete=True, more=more)
        place = app.positions.decode(stream, recovery.epoch, since)
        later = None
        if place is not None:
            await recovery.load(app.key, stream, place)
            later = recovery.since(app.key, stream, place)
        if later is None:
            return History([], self._position(app, stream, recovery.place), complete=False, more=False)
        found, more = self._some(app, stream, iter(later), limit)
        position = found[-1].position if more else self._position(app, stream, recovery.place)
        return History(found, position, complete=True, more=more)

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
