"""Stream -> the subscribers of this process: fan-out of publications into their outboxes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from ..protocol.messages import encode_direct, encode_presence
from ..protocol.names import Kind
from .broker import AppKey, Broker, Publication
from .counters import Counts

SERVICE_RESTART = 1012  # a close code of the registry that RFC 6455 section 7.4.1 founded

OUTBOXES_IN_A_ROW = 32
"""After how many outboxes of a stream everything else has its turn: about a third of a millisecond."""


class Gauges(NamedTuple):
    """What there is in a hub at one moment; ``subscriptions`` are the streams of all its connections."""

    connections: int
    subscriptions: int
    unsent_bytes: int


class Batch:
    """Events that leave together, in their order, to one outbox or to thousands.

    Attributes:
        events: the JSON text of each.
        encoded: what a transport made of them, kept here so that it is made once for all its outboxes.
    """

    __slots__ = ("encoded", "events")

    def __init__(self, events: tuple[bytes, ...]) -> None:
        self.events = events
        self.encoded: bytes | None = None


class Outbox(Protocol):
    """Where the events for one subscriber go."""

    @property
    def unsent_bytes(self) -> int:
        """What waits for the subscriber to read it."""
        ...

    def write(self, batch: Batch) -> None:
        """Send, or keep for sending.

        It neither waits nor raises nor calls back into the hub: an outbox that can take no more
        has its subscriber dropped, later.
        """
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye to the subscriber, with a WebSocket close code where there is one; as above."""
        ...


class _Stream:
    """The subscribers of one stream, by what they receive."""

    __slots__ = (
        "auth",
        "confirmed",
        "counts",
        "direct",
        "joining",
        "outboxes",
        "pending",
        "presence",
        "waiting",
        "window_is_open",
        "writing",
    )

    def __init__(self, confirmed: asyncio.Future[None], counts: Counts) -> None:
        self.confirmed = confirmed
        self.counts = counts
        self.waiting = 0  # subscribers that will be in outboxes once the broker has confirmed
        # Each with the place of the last publication before its subscription.
        self.outboxes: dict[Outbox, int] = {}
        self.auth: set[Outbox] = set()
        self.presence: dict[Outbox, str] = {}
        self.direct: dict[str, set[Outbox]] = {}
        # Who has asked for presence and doesn't know yet who is there: what happened since.
        self.joining: dict[Outbox, list[Publication]] = {}
        self.pending: list[Publication] = []
        self.writing: Iterator[None] | None = None
        self.window_is_open = False

    def start_writing(self) -> None:
        """Take what is pending; each step of ``writing`` then writes it, in one write an outbox, to some."""
        publications, self.pending = self.pending, []
        self.writing = self._fan_out(publications)

    def _fan_out(self, publications: list[Publication]) -> Iterator[None]:
        """Write public and auth publications, in their order."""
        everything = Batch(tuple(p.event for p in publications))
        public = Batch(tuple(p.event for p in publications if p.kind is Kind.PUBLIC))
        is_for_all = len(public.events) == len(everything.events)
        outboxes = iter(self.outboxes)
        while some := tuple(itertools.islice(outboxes, OUTBOXES_IN_A_ROW)):
            for outbox in some:
                if is_for_all or outbox in self.auth:
                    outbox.write(everything)
                elif public.events:
                    outbox.write(public)
            with_auth = len(some) if is_for_all else sum(outbox in self.auth for outbox in some)
            self.counts.deliveries += with_auth * len(everything.events)
            self.counts.deliveries += (len(some) - with_auth) * len(public.events)
            yield

    def write_some(self) -> bool:
        """Go on writing; whether there may be more to write."""
        if self.writing is None or next(self.writing, self) is self:
            self.writing = None
        return self.writing is not None

    def flush(self) -> None:
        """Write everything that waits, before something else is written or changed."""
        while self.write_some():
            pass
        if self.pending:
            self.start_writing()
            self.flush()


class Hub:
    """Knows outboxes, not what is behind them.

    Publications of a stream are joined: the first is written at once, what follows within the next
    ``join_window_s`` is written at its end, in one write an outbox. As long as publications keep coming,
    window follows window; once one has passed without any, the next publication is written at once again.
    Writing to many outboxes takes several turns of the event loop, so that everything else has its own.

    Parameters:
        broker: carries what is published.
        join_window_s: in seconds; 0 writes every publication at once.
    """

    def __init__(self, broker: Broker, *, join_window_s: float) -> None:
        self._broker = broker
        self._join_window_s = join_window_s
        self._streams: dict[tuple[AppKey, str], _Stream] = {}
        self._private: dict[tuple[AppKey, str], Outbox] = {}
        self.counts = Counts()

    # What a broker delivers.

    def deliver(self, publication: Publication) -> None:
        """Hand one publication to those who are to receive it."""
        if publication.kind is Kind.PRIVATE:
            outbox = self._private.get((publication.app, publication.name))
            if outbox is not None:
                outbox.write(Batch((publication.event,)))
                self.counts.deliveries += 1
            return
        stream = self._streams.get((publication.app, publication.name))
        if stream is None:
            return
        if publication.kind is Kind.PRESENCE:
            self._deliver_presence(stream, publication)
        elif publication.place:
            self._deliver_late(stream, publication)
        elif publication.kind is Kind.DIRECT:
            stream.flush()
            batch = Batch((publication.event,))
            for outbox in stream.direct.get(publication.user_id or "", ()):
                outbox.write(batch)
                self.counts.deliveries += 1
        else:
            stream.pending.append(publication)
            if not self._join_window_s:
                stream.flush()
            elif not stream.window_is_open:
                stream.window_is_open = True
                self._write(stream)

    def _write(self, stream: _Stream) -> None:
        stream.start_writing()
        self._go_on_writing(stream)

    def _go_on_writing(self, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()
        if stream.write_some():
            # Thousands of outboxes take tens of milliseconds: others have their turns in between.
            loop.call_soon(self._go_on_writing, stream)
        else:
            loop.call_later(self._join_window_s, self._end_window, stream)

    def _end_window(self, stream: _Stream) -> None:
        if stream.pending:
            self._write(stream)
        else:
            stream.window_is_open = False

    def _deliver_presence(self, stream: _Stream, publication: Publication) -> None:
        stream.flush()
        for events in stream.joining.values():
            events.append(publication)
        batch = Batch((publication.event,))
        for outbox, user_id in stream.presence.items():
            if user_id != publication.user_id:
                outbox.write(batch)

    def _deliver_late(self, stream: _Stream, publication: Publication) -> None:
        stream.flush()
        outboxes: Iterable[Outbox] = stream.outboxes
        if publication.kind is Kind.DIRECT:
            outboxes = stream.direct.get(publication.user_id or "", ())
        elif publication.kind is Kind.AUTH:
            outboxes = stream.auth
        batch = Batch((publication.event,))
        for outbox in outboxes:
            # Who subscribed later may have had it elsewhere, over a connection that he lost.
            if stream.outboxes[outbox] < publication.place:
                outbox.write(batch)
                self.counts.deliveries += 1

    def miss(self) -> None:
        """Something was published that can be delivered no more: all are to know, and connect again."""
        for outbox in list(self._private.values()):
            outbox.close(SERVICE_RESTART, "messages were missed")

    def gauges(self) -> Gauges:
        """What there is at the moment."""
        return Gauges(
            connections=len(self._private),
            subscriptions=sum(len(stream.outboxes) for stream in self._streams.values()),
            unsent_bytes=sum(outbox.unsent_bytes for outbox in self._private.values()),
        )

    # What connections do.

    def new_subscriber_id(self) -> str:
        """Make the id of a subscriber that is to :meth:`connect`."""
        return self._broker.new_subscriber_id()

    def connect(self, app: AppKey, subscriber_id: str, outbox: Outbox) -> None:
        """From now on ``outbox`` gets the private messages for ``subscriber_id``."""
        self._private[app, subscriber_id] = outbox

    def disconnect(self, app: AppKey, subscriber_id: str) -> None:
        """Private messages for ``subscriber_id`` have no receiver any more."""
        del self._private[app, subscriber_id]

    async def subscribe(self, app: AppKey, name: str, outbox: Outbox) -> None:
        """Once this returns, whatever is published to the stream reaches the outbox.

        Raises:
            BrokerUnavailableError: nothing has changed.
        """
        stream = self._streams.get((app, name))
        if stream is None:
            confirmed = asyncio.ensure_future(self._broker.subscribe(app, name))
            stream = self._streams[app, name] = _Stream(confirmed, self.counts)
        stream.waiting += 1
        try:
            # Shielded, since the others that wait for the same stream are not to be cancelled with this one.
            await asyncio.shield(stream.confirmed)
            place = await self._broker.place()
            stream.flush()
            stream.outboxes[outbox] = place
        finally:
            stream.waiting -= 1
            if self._forget_if_unused(app, name, stream):
                self._broker.unsubscribe(app, name)

    def unsubscribe(self, app: AppKey, name: str, outbox: Outbox) -> None:
        """The outbox gets nothing more of the stream, whose modes it has left before."""
        stream = self._streams[app, name]
        stream.flush()
        del stream.outboxes[outbox]
        if self._forget_if_unused(app, name, stream):
            self._broker.unsubscribe(app, name)

    def _forget_if_unused(self, app: AppKey, name: str, stream: _Stream) -> bool:
        if stream.outboxes or stream.waiting:
            return False
        del self._streams[app, name]
        return True

    def enable_auth(self, app: AppKey, name: str, outbox: Outbox) -> None:
        """The outbox also gets what is published to ``auth:`` the stream."""
        stream = self._streams[app, name]
        stream.flush()
        stream.auth.add(outbox)

    def disable_auth(self, app: AppKey, name: str, outbox: Outbox) -> None:
        """The outbox gets what is published to ``auth:`` the stream no more."""
        stream = self._streams[app, name]
        stream.flush()
        stream.auth.discard(outbox)

    def enable_direct(self, app: AppKey, name: str, outbox: Outbox, user_id: str) -> None:
        """The outbox also gets direct messages to the user."""
        self._streams[app, name].direct.setdefault(user_id, set()).add(outbox)

    def disable_direct(self, app: AppKey, name: str, outbox: Outbox, user_id: str) -> None:
        """The outbox gets direct messages to the user no more."""
        direct = self._streams[app, name].direct
        direct[user_id].discard(outbox)
        if not direct[user_id]:
            del direct[user_id]

    async def send_direct(
        self, app: AppKey, name: str, from_user_id: str, to_user_id: str, message: str
    ) -> None:
        """Send a message to every connection of a user on the stream; it is no error if he has none.

        Raises:
            BrokerUnavailableError: nobody got it.
        """
        event = encode_direct(name, from_user_id, message)
        await self._broker.send(Publication(app, Kind.DIRECT, name, event, to_user_id))

    async def enable_presence(
        self, app: AppKey, name: str, outbox: Outbox, user_id: str, subscriber_id: str
    ) -> None:
        """Tell the outbox who is there, then who joins and leaves; tell the others that the user is there.

        Raises:
            BrokerUnavailableError: nothing has changed.
        """
        stream = self._streams[app, name]
        missed: list[Publication] = []
        stream.joining[outbox] = missed
        try:
            present = await self._broker.join(app, name, user_id, subscriber_id)
        finally:
            del stream.joining[outbox]
        stream.flush()
        events = [encode_presence(name, other, up=True) for other in present.user_ids if other != user_id]
        # What the broker told between asking and answering is in its answer, or else comes after it.
        events += [p.event for p in missed if p.version > present.version and p.user_id != user_id]
        if events:
            outbox.write(Batch(tuple(events)))
        stream.presence[outbox] = user_id

    def disable_presence(
        self, app: AppKey, name: str, outbox: Outbox, user_id: str, subscriber_id: str
    ) -> None:
        """Tell the outbox nothing more; tell the others if this was the user's last connection."""
        del self._streams[app, name].presence[outbox]
        self._broker.leave(app, name, user_id, subscriber_id)
