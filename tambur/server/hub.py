"""The streams of this node and their subscribers. Deliveries of the broker go into their outboxes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterator
from typing import NamedTuple

from ..protocol import close_codes
from ..protocol.messages import encode_direct, encode_presence
from ..protocol.names import Kind
from .broker import (
    AppKey,
    Backend,
    Logs,
    PresentUsers,
    Publication,
    direct_log,
    is_private_log,
    private_log,
)
from .counters import Counts
from .logs import line
from .memory import STREAM_BYTES, Memory
from .outbox import Batch, Outbox
from .rounds import Subscription
from .stream import Stream
from .turnstile import Turnstile

USERS_PER_TURN = 128
"""How many users of a list are written in one turn of the event loop: about a third of a millisecond."""

HANDSHAKES_PER_TURN = 2
"""How many connections become WebSockets in one turn of the event loop: about half a millisecond.

With fewer, commands to Redis leave in smaller batches, which costs processor time.
"""

COMMANDS_PER_TURN = 8
"""How many commands begin in one turn of the event loop: about a millisecond."""

SCANNED_PER_TURN = 4096
"""How many streams one turn of the event loop looks through: about two milliseconds."""

logger = logging.getLogger("tambur.server")


class Gauges(NamedTuple):
    """The size of a hub's state; ``subscriptions`` counts the streams of all its connections."""

    connections: int
    subscriptions: int
    unsent_bytes: int


class _Stream(Stream):
    """A stream, and the hub's state for it.

    Attributes:
        confirmed: done once the broker delivers the stream's publications; ``None`` some time after that.
        waiting: number of subscribers that wait for it, or for a replay; 1 more while the broker subscribes.
        is_scheduled: whether a later turn writes, or ends the window.
    """

    __slots__ = ("confirmed", "is_scheduled", "waiting")

    def __init__(self, counts: Counts, confirmed: asyncio.Future[None]) -> None:
        super().__init__(counts)
        self.confirmed: asyncio.Future[None] | None = confirmed
        self.waiting = 0
        self.is_scheduled = False


class Hub:
    """Knows outboxes, and not the transports behind them.

    Publications of a stream are coalesced. The first one is written at once; those of the next
    ``coalesce_window_s`` are written together when it ends, in one write an outbox. Window follows window
    while publications arrive. After a window without any, the next publication is written at once again.
    Writing to many outboxes takes several turns of the event loop. See :mod:`tambur.server.stream`.

    Parameters:
        backend: carries publications between nodes, and keeps who is present.
        coalesce_window_s: in seconds. With 0, each publication is a write of its own, to all outboxes in one
            turn.
    """

    def __init__(self, backend: Backend, *, coalesce_window_s: float) -> None:
        self._backend = backend
        self._broker, self._presence = backend.broker, backend.presence
        self._window_s = coalesce_window_s
        self._streams: dict[tuple[AppKey, str], _Stream] = {}
        self._private: dict[tuple[AppKey, str], Outbox] = {}
        self.counts = Counts()
        self.memory = Memory()
        self.handshakes = Turnstile(HANDSHAKES_PER_TURN)
        self.commands = Turnstile(COMMANDS_PER_TURN)

    # Deliveries of a broker

    def deliver(self, publication: Publication) -> None:
        """Hand one publication to the subscribers that it is for."""
        if publication.kind is Kind.PRIVATE:
            outbox = self._private.get((publication.app, publication.name))
            is_excluded = publication.excluded == publication.name
            event = None if outbox is None or is_excluded else self._private_event(outbox, publication)
            if outbox is not None and event is not None:
                outbox.write(Batch((event,)))
                self.counts.deliveries += 1
            _log(publication, int(event is not None))
            return
        stream = self._streams.get((publication.app, publication.name))
        if stream is None:
            return
        if logger.isEnabledFor(logging.DEBUG):
            _log(publication, stream.count_receivers(publication))
        observer = self.counts.observer
        if observer is not None and observer.is_tracing:
            observer.delivering(publication, stream)
        stream.append(publication)
        if not self._window_s:
            while self._write_some(stream):
                pass
        elif not stream.is_scheduled:
            self._write(stream)

    def _private_event(self, outbox: Outbox, publication: Publication) -> bytes | None:  # noqa: ARG002
        """The event of a private message for an outbox; ``None`` for no event."""
        return publication.event

    def _write(self, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()
        stream.is_scheduled = True
        if self._write_some(stream):
            # Thousands of outboxes take tens of milliseconds: everything else runs in between.
            loop.call_soon(self._write, stream)
        else:
            loop.call_later(self._window_s, self._end_window, stream)

    def _write_some(self, stream: Stream) -> bool:
        """Write to a few subscribers; return whether others wait for their turn."""
        observer = self.counts.observer
        if observer is None or not observer.is_tracing:
            return stream.write_some()
        began, slow, was_writing = time.perf_counter(), self.counts.slow_subscribers, stream.is_writing
        has_more = stream.write_some()
        slow = self.counts.slow_subscribers - slow
        if slow or not (was_writing and has_more):  # in the middle of a round there is nothing to note
            observer.wrote(stream, began, slow)
        return has_more

    def _end_window(self, stream: _Stream) -> None:
        if stream.has_unwritten:
            self._write(stream)
        else:
            stream.is_scheduled = False

    def miss(self, logs: Logs | None) -> None:
        """Publications were lost: close the connections that may miss some, so that clients reconnect.

        Parameters:
            logs: those that may have lost some; ``None`` for all.
        """
        outboxes = list(self._private.values()) if logs is None else self._readers(logs)
        for outbox in outboxes:
            outbox.close(close_codes.SERVICE_RESTART, "messages were missed")

    def _readers(self, logs: Logs) -> list[Outbox]:
        """The outboxes that receive the messages of some logs."""
        found: list[Outbox] = []
        for app, log in logs:
            name, _, user_id = log.partition("\n")
            stream = self._streams.get((app, name))
            if is_private_log(log):
                outbox = self._private.get((app, log.removeprefix(private_log(""))))
                found += [outbox] if outbox is not None else []
            elif stream is not None:
                found += stream.direct_outboxes(user_id) if user_id else stream.outboxes()
        return found

    def move(self, app: AppKey, subscriber_id: str) -> None:
        """Another node continues a session: close its connection here."""
        outbox = self._private.pop((app, subscriber_id), None)
        if outbox is not None:
            outbox.close(close_codes.SESSION_MOVED, "the session continues on another connection")

    def read_logs(self) -> Iterator[tuple[AppKey, str]]:
        """The logs of private and of direct messages that connections read."""
        for app, subscriber_id in self._private:
            yield app, private_log(subscriber_id)
        for (app, name), stream in self._streams.items():
            for user_id in stream.direct_users():
                yield app, direct_log(name, user_id)

    async def subscribers(self, app: AppKey, prefix: str, after: str, count: int) -> dict[str, int]:
        """The first streams of an app with subscribers, by name, and how many each has.

        Parameters:
            prefix: how their names begin.
            after: their names come after it.
            count: how many streams.
        """
        found: list[tuple[str, int]] = []
        streams = list(self._streams.items())
        for i in range(0, len(streams), SCANNED_PER_TURN):
            if i:
                await asyncio.sleep(0)
            # Names that come after enough others need no sorting.
            last = found[-1][0] if len(found) == count else None
            found += [
                (name, len(stream))
                for (of, name), stream in streams[i : i + SCANNED_PER_TURN]
                if name > after
                and (last is None or name < last)
                and name.startswith(prefix)
                and of == app
                and len(stream)
            ]
            found = sorted(found)[:count]
        return dict(found)

    def subscriptions(self, app: AppKey, name: str) -> Iterator[Subscription]:
        """The subscriptions of a stream on this node, oldest first."""
        stream = self._streams.get((app, name))
        return iter(()) if stream is None else stream.subscriptions()

    def outbox(self, app: AppKey, subscriber_id: str) -> Outbox | None:
        """The outbox of a connected subscriber; ``None`` if it is not connected to this node."""
        return self._private.get((app, subscriber_id))

    def subscribers_as(self, app: AppKey, users: Collection[str]) -> set[str]:
        """The IDs of the subscribers that have presence or direct mode as one of some users."""
        streams = [stream for (of, _), stream in self._streams.items() if of == app]
        return {subscriber_id for stream in streams for subscriber_id in stream.subscribers_as(users)}

    def gauges(self) -> Gauges:
        """The current size of the hub's state."""
        return Gauges(
            connections=len(self._private),
            subscriptions=sum(map(len, self._streams.values())),
            unsent_bytes=sum(outbox.unsent_bytes for outbox in self._private.values()),
        )

    # Operations of connections. A returned number counts the events that the operation writes, now or soon.

    def new_subscriber_id(self) -> str:
        """Make the id of a subscriber, for :meth:`connect`."""
        return self._backend.new_subscriber_id()

    def connect(self, app: AppKey, subscriber_id: str, outbox: Outbox) -> None:
        """Have ``outbox`` receive the private messages for ``subscriber_id``."""
        self._private[app, subscriber_id] = outbox

    def disconnect(self, app: AppKey, subscriber_id: str, outbox: Outbox) -> None:
        """Stop the private messages to ``outbox``, unless another outbox has taken over the ID."""
        if self._private.get((app, subscriber_id)) is outbox:
            del self._private[app, subscriber_id]

    async def subscribe(self, app: AppKey, name: str, outbox: Outbox, subscriber_id: str = "") -> None:
        """Subscribe an outbox to a stream, from the return of this call on.

        Parameters:
            subscriber_id: the ID that a publisher may exclude.

        Raises:
            BrokerUnavailableError: nothing has changed.
        """
        async with self.used(app, name) as stream:
            stream.add(outbox, subscriber_id)

    @contextlib.asynccontextmanager
    async def used(self, app: AppKey, name: str) -> AsyncIterator[_Stream]:
        """A stream that is not forgotten meanwhile. Everything published before has been delivered."""
        stream = self._streams.get((app, name))
        if stream is None:
            confirmed = asyncio.ensure_future(self._broker.subscribe(app, name))
            made = stream = self._streams[app, name] = _Stream(self.counts, confirmed)
            self.memory.add(STREAM_BYTES)
            # The broker goes on subscribing if its subscribers are cancelled, and cannot unsubscribe before.
            made.waiting += 1
            confirmed.add_done_callback(lambda _: self._stop_waiting(app, name, made))
        stream.waiting += 1
        try:
            if stream.confirmed is not None:
                # Shielded: if this subscriber is cancelled, the others that wait for the stream are not.
                await asyncio.shield(stream.confirmed)
                stream.confirmed = None
            else:
                await self._broker.sync()
            yield stream
        finally:
            self._stop_waiting(app, name, stream)

    def _stop_waiting(self, app: AppKey, name: str, stream: _Stream) -> None:
        stream.waiting -= 1
        self._forget_if_unused(app, name, stream)

    def unsubscribe(self, app: AppKey, name: str, outbox: Outbox) -> None:
        """Unsubscribe an outbox from a stream. Its modes must be disabled."""
        stream = self._streams[app, name]
        stream.remove(outbox)
        self._forget_if_unused(app, name, stream)

    def _forget_if_unused(self, app: AppKey, name: str, stream: _Stream) -> None:
        if not len(stream) and not stream.waiting:
            del self._streams[app, name]
            self.memory.add(-STREAM_BYTES)
            self._broker.unsubscribe(app, name)

    def enable_auth(self, app: AppKey, name: str, outbox: Outbox) -> None:
        """Let an outbox also receive the stream's ``auth:`` messages."""
        self._streams[app, name].enable_auth(outbox)

    def disable_auth(self, app: AppKey, name: str, outbox: Outbox) -> None:
        """Undo :meth:`enable_auth`."""
        self._streams[app, name].disable_auth(outbox)

    def enable_direct(self, app: AppKey, name: str, outbox: Outbox, user_id: str) -> None:
        """Have an outbox receive direct messages to the user, too."""
        self._streams[app, name].enable_direct(outbox, user_id)

    def disable_direct(self, app: AppKey, name: str, outbox: Outbox, user_id: str) -> None:
        """Undo :meth:`enable_direct`."""
        self._streams[app, name].disable_direct(outbox, user_id)

    async def send_direct(
        self, app: AppKey, name: str, from_user_id: str, to_user_id: str, message: str
    ) -> int:
        """Send a message to every connection of a user on a stream; a user without any is no error.

        Raises:
            BrokerUnavailableError: the message reaches nobody.
        """
        event = encode_direct(name, from_user_id, message)
        await self._broker.send(Publication(app, Kind.DIRECT, name, event, to_user_id))
        return self._streams[app, name].count_direct(to_user_id)

    async def enable_presence(
        self, app: AppKey, name: str, outbox: Outbox, user_id: str, subscriber_id: str
    ) -> int:
        """Send an outbox the present users, then each join and leave; announce this user to the others.

        Raises:
            BrokerUnavailableError: nothing has changed.
        """
        stream = self._streams[app, name]
        present = PresentUsers((), 0)
        # Presence events that arrive before the list is written belong behind it, and some are in it already.
        stream.hold(outbox)
        try:
            present = await self._presence.join(app, name, user_id, subscriber_id)
            await self._write_present(name, outbox, user_id, present)
            stream.enable_presence(outbox, user_id)
        finally:
            stream.release(outbox, version=present.version)
        return len(present.user_ids) + stream.count_presence()

    async def _write_present(self, name: str, outbox: Outbox, user_id: str, present: PresentUsers) -> int:
        """Returns how many users that were."""
        others = [other for other in present.user_ids if other != user_id]
        for i in range(0, len(others), USERS_PER_TURN):
            if i:
                await asyncio.sleep(0)
            some = others[i : i + USERS_PER_TURN]
            outbox.write(Batch(tuple(encode_presence(name, other, up=True) for other in some)))
        return len(others)

    def disable_presence(
        self,
        app: AppKey,
        name: str,
        outbox: Outbox,
        user_id: str,
        subscriber_id: str,
        *,
        linger_s: float = 0.0,
    ) -> int:
        """Undo :meth:`enable_presence`; tell the others if this was the user's last connection.

        Parameters:
            linger_s: for how many seconds the user stays present.
        """
        stream = self._streams[app, name]
        stream.disable_presence(outbox)
        self._presence.leave(app, name, user_id, subscriber_id, linger_s=linger_s)
        return stream.count_presence()


def _log(publication: Publication, subscribers: int) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        kind = publication.kind
        stream = "private:SUBSCRIBER_ID" if kind is Kind.PRIVATE else publication.name
        facts = {"app": publication.app.app_id, "stream": stream, "kind": kind.value}
        logger.debug(line("publication delivered", **facts, subscribers=subscribers))
