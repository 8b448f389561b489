"""One stream on one node: its subscriptions, and the queue of events for them.

Messages, direct messages and presence events are entries of one queue, numbered as they arrive. A *round*
writes the entries that wait to the subscriptions. Each turn of the event loop it writes to a few of them, so
that everything else runs in between. Entries that arrive during a round wait for the next one, and leave in
one write a subscription.

A subscription takes part from one entry on, whose number is :attr:`Subscription.next`:

- A new subscription begins with the next entry that arrives.
- A change (a mode, an unsubscribe) first writes what this one subscription still lacks, by the modes that it
  had. So the change takes effect between two entries, and costs one write, however many others subscribe.
- A subscription is *held* while it is sent something that comes before the live entries, such as the list of
  present users. Rounds pass it by, and the queue keeps what it lacks. Releasing writes all of that and makes
  it live, in one step: no entry is missing, and none comes twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from ..protocol.names import Kind
from .broker import Publication
from .counters import Counts
from .outbox import Batch, Outbox
from .rounds import Round, Subscription

_HELD = sys.maxsize  # above the number of any entry


class Stream:
    """The subscriptions of one stream, and its queue.

    Parameters:
        counts: where deliveries are counted.

    Attributes:
        extend: creates an entry's event for extended connections; ``None`` without such connections.
    """

    __slots__ = (
        "_auth",
        "_counts",
        "_direct",
        "_entries",
        "_first",
        "_held",
        "_presence",
        "_round",
        "_subscriptions",
        "_written",
        "extend",
    )

    def __init__(self, counts: Counts) -> None:
        self.extend: Callable[[Publication], bytes] | None = None
        self._counts = counts
        self._subscriptions: dict[Outbox, Subscription] = {}
        # Those with a mode, as sets that take less memory while they are empty.
        self._auth: dict[Subscription, None] = {}
        self._presence: dict[Subscription, None] = {}
        self._direct: dict[str, dict[Subscription, None]] = {}
        # Each with the number of the first entry that it lacks, which grows from one to the next.
        self._held: dict[Subscription, int] = {}
        self._entries: list[Publication] = []
        self._first = 0  # the number of the first in _entries
        self._written = 0  # the number of the first entry that no round has finished
        self._round: Round | None = None

    def __len__(self) -> int:
        return len(self._subscriptions)

    # The queue.

    @property
    def end(self) -> int:
        """The number of the next entry that arrives."""
        return self._first + len(self._entries)

    @property
    def writing(self) -> int:
        """The number of the first entry that no round has begun to write."""
        return self._written if self._round is None else self._round.end

    @property
    def written(self) -> int:
        """The number of the first entry that no round has finished."""
        return self._written

    @property
    def is_writing(self) -> bool:
        """Whether a round is unfinished."""
        return self._round is not None

    @property
    def has_unwritten(self) -> bool:
        """Whether entries wait for a round, or a round is unfinished."""
        return self._written < self.end

    def append(self, publication: Publication) -> None:
        """Add an entry, which the next round writes."""
        if self.extend is not None:
            publication = publication._replace(extended_event=self.extend(publication))
        self._entries.append(publication)

    def write_some(self) -> bool:
        """Do the next step of the current round, or of a new one.

        Returns:
            Whether the round is unfinished. Otherwise entries may wait for the next one.
        """
        if self._round is None:
            if not self.has_unwritten:
                return False
            unwritten = self._entries[self._written - self._first :]
            self._round = Round(unwritten, self._written, self._receivers(unwritten))
        self._counts.deliveries += self._round.write_some()
        if not self._round.is_over:
            return True
        self._written = self._round.end
        self._round = None
        self._trim()
        return False

    def _receivers(self, publications: Iterable[Publication]) -> Sequence[Subscription]:
        found: dict[Subscription, None] = {}
        for publication in publications:
            kind = publication.kind
            if kind is Kind.PUBLIC:
                return tuple(self._subscriptions.values())
            if kind is Kind.AUTH:
                found.update(self._auth)
            elif kind is Kind.PRESENCE:
                found.update(self._presence)
            else:
                found.update(self._direct.get(publication.user_id or "", {}))
        return tuple(found)

    def count_receivers(self, publication: Publication) -> int:
        """How many subscriptions an entry is for."""
        if publication.kind is Kind.PUBLIC and publication.excluded is None:
            return len(self._subscriptions)
        return sum(subscription.receives(publication) for subscription in self._receivers([publication]))

    def _trim(self) -> None:
        """Forget the entries that no subscription lacks."""
        needed = min(self._written, next(iter(self._held.values()), self._written))
        del self._entries[: needed - self._first]
        self._first = needed

    # Subscriptions.

    def add(self, outbox: Outbox, subscriber_id: str = "", *, is_extended: bool = False) -> None:
        """Subscribe an outbox to all later events; the parameters are :class:`Subscription`'s."""
        added = Subscription(outbox, self.end, subscriber_id, is_extended=is_extended)
        self._subscriptions[outbox] = added

    def remove(self, outbox: Outbox) -> None:
        """Write the events so far to an outbox and unsubscribe it. All its modes must be disabled."""
        self._catch_up(self._subscriptions[outbox])
        del self._subscriptions[outbox]

    def subscriptions(self) -> Iterator[Subscription]:
        """All subscriptions, oldest first."""
        return iter(self._subscriptions.values())

    def enable_auth(self, outbox: Outbox) -> None:
        subscription = self._caught_up(outbox)
        subscription.auth = True
        self._auth[subscription] = None

    def disable_auth(self, outbox: Outbox) -> None:
        subscription = self._caught_up(outbox)
        subscription.auth = False
        del self._auth[subscription]

    def enable_direct(self, outbox: Outbox, user_id: str) -> None:
        subscription = self._caught_up(outbox)
        subscription.direct_as = user_id
        self._direct.setdefault(user_id, {})[subscription] = None

    def disable_direct(self, outbox: Outbox, user_id: str) -> None:
        subscription = self._caught_up(outbox)
        subscription.direct_as = None
        del self._direct[user_id][subscription]
        if not self._direct[user_id]:
            del self._direct[user_id]

    def is_extended(self, outbox: Outbox) -> bool:
        return self._subscriptions[outbox].is_extended

    def count_direct(self, user_id: str) -> int:
        """How many connections receive a direct message to a user."""
        return len(self._direct.get(user_id, ()))

    def outboxes(self) -> Iterable[Outbox]:
        return self._subscriptions

    def direct_users(self) -> Iterable[str]:
        """The users with direct mode."""
        return self._direct

    def direct_outboxes(self, user_id: str) -> Iterator[Outbox]:
        """Those that receive direct messages to a user."""
        for subscription in self._direct.get(user_id, ()):
            yield subscription.outbox

    def subscribers_as(self, users: Collection[str]) -> list[str]:
        """The IDs of the subscribers that have presence or direct mode as one of some users."""
        present = [each.subscriber_id for each in self._presence if each.present_as in users]
        direct = [found for user_id, found in self._direct.items() if user_id in users]
        return present + [each.subscriber_id for found in direct for each in found]

    def enable_presence(self, outbox: Outbox, user_id: str) -> None:
        subscription = self._caught_up(outbox)
        subscription.present_as = user_id
        self._presence[subscription] = None

    def disable_presence(self, outbox: Outbox) -> None:
        subscription = self._caught_up(outbox)
        subscription.present_as = None
        del self._presence[subscription]

    def count_presence(self) -> int:
        """How many connections have presence mode."""
        return len(self._presence)

    # Catching up.

    def hold(self, outbox: Outbox) -> None:
        """Write the missing events of a subscription, then hold back later ones until :meth:`release`."""
        subscription = self._caught_up(outbox)
        self._held[subscription] = self.end
        subscription.next = _HELD

    def release(self, outbox: Outbox, *, version: int = 0) -> None:
        """Write the events that a held subscription lacks, by its current modes; it is live again.

        Parameters:
            version: that of the presence events which it has received otherwise, with those before.
        """
        subscription = self._subscriptions[outbox]
        self._write(subscription, self._held.pop(subscription), version)
        self._trim()

    def _caught_up(self, outbox: Outbox) -> Subscription:
        subscription = self._subscriptions[outbox]
        self._catch_up(subscription)
        return subscription

    def _catch_up(self, subscription: Subscription) -> None:
        if subscription.next != _HELD:
            self._write(subscription, max(subscription.next, self._written))

    def _write(self, subscription: Subscription, begin: int, version: int = 0) -> None:
        """Write to one subscription the entries from a number on, ahead of any round."""
        events = subscription.events(
            p
            for p in self._entries[begin - self._first :]
            if not (p.kind is Kind.PRESENCE and p.version <= version)
        )
        if events:
            subscription.outbox.write(Batch(events))
            self._counts.deliveries += len(events)
        subscription.next = self.end
