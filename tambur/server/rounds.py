"""Rounds: entries of a stream are written to its subscriptions, a few in each turn of the event loop.

All subscriptions that receive the same of the entries share one batch, which is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..protocol.names import Kind
from .broker import Publication
from .outbox import Batch, Outbox

WRITES_PER_TURN = 32
"""Subscriptions that a round writes to in one turn of the event loop: about a third of a millisecond."""


class Subscription:
    """One subscriber of the stream.

    Attributes:
        outbox: where its events go.
        next: number of the first entry that it may lack, unless a finished round has written that one.
        auth: whether it receives ``auth`` messages.
        present_as: its user in presence mode; ``None`` without presence mode.
        direct_as: the user whose direct messages it receives; ``None`` without direct mode.
        subscriber_id: the ID that a publisher may exclude.
        is_extended: whether its messages carry positions.
    """

    __slots__ = (
        "auth", "direct_as", "is_extended", "next", "outbox", "present_as", "subscriber_id",
    )  # fmt: skip

    def __init__(self, outbox: Outbox, number: int, subscriber_id: str, *, is_extended: bool) -> None:
        self.outbox = outbox
        self.subscriber_id = subscriber_id
        self.is_extended = is_extended
        self.next = number
        self.auth = False
        self.present_as: str | None = None
        self.direct_as: str | None = None

    def receives(self, publication: Publication) -> bool:
        """Whether an entry is for this subscription."""
        kind = publication.kind
        if publication.excluded == self.subscriber_id:
            return False
        if kind is Kind.AUTH:
            return self.auth
        if kind is Kind.PRESENCE:
            return self.present_as is not None and self.present_as != publication.user_id
        if kind is Kind.DIRECT:
            return self.direct_as == publication.user_id
        return True

    def events(self, publications: Iterable[Publication]) -> tuple[bytes, ...]:
        """Select the events of consecutive entries that this subscription receives."""
        received = (p for p in publications if self.receives(p))
        if self.is_extended:
            return tuple(p.extended_event for p in received)
        return tuple(p.event for p in received)


class _Selection:
    """The batches of consecutive entries: one for all subscriptions that receive the same."""

    __slots__ = ("_addressed", "_batches", "_excluded", "_publications", "_seen")

    def __init__(self, publications: Sequence[Publication]) -> None:
        self._publications = publications
        self._seen = {p.user_id for p in publications if p.kind is Kind.PRESENCE}
        self._addressed = {p.user_id for p in publications if p.kind is Kind.DIRECT}
        self._excluded = {p.excluded for p in publications if p.excluded is not None}
        self._batches: dict[object, Batch | None] = {}

    def batch(self, subscription: Subscription) -> Batch | None:
        """Get the batch of one subscription; ``None`` if it receives nothing."""
        user, addressee = subscription.present_as, subscription.direct_as
        if user is None and addressee is None and not self._excluded:
            key: object = subscription.auth, subscription.is_extended
        else:
            excluded = subscription.subscriber_id
            key = (
                subscription.auth,
                subscription.is_extended,
                excluded if excluded in self._excluded else None,
                user is not None,
                user if user in self._seen else None,
                addressee if addressee in self._addressed else None,
            )
        try:
            return self._batches[key]
        except KeyError:
            events = subscription.events(self._publications)
            batch = self._batches[key] = Batch(events) if events else None
            return batch


class Round:
    """Writes some consecutive entries to subscriptions, a few in each step.

    Parameters:
        publications: the entries.
        start: the number of the first.
        subscriptions: all that any of the entries may be for.
    """

    __slots__ = (
        "_everything",
        "_position",
        "_publications",
        "_selections",
        "_start",
        "_subscriptions",
        "end",
    )

    def __init__(
        self, publications: list[Publication], start: int, subscriptions: Sequence[Subscription]
    ) -> None:
        self._publications = publications
        self._start = start
        self._subscriptions = subscriptions
        self._position = 0
        self._selections: dict[int, _Selection] = {}
        self.end = start + len(publications)
        # The most common case needs no selection.
        self._everything: tuple[Batch, Batch] | None = None  # for plain and for extended connections
        if all(p.kind is Kind.PUBLIC and p.excluded is None for p in publications):
            plain = Batch(tuple(p.event for p in publications))
            self._everything = plain, Batch(tuple(p.extended_event for p in publications))

    def write_some(self) -> int:
        """Write to the next few subscriptions; return the number of events."""
        some = self._subscriptions[self._position : self._position + WRITES_PER_TURN]
        self._position += WRITES_PER_TURN
        if self._everything is None:
            return sum(map(self._write, some))
        start, end = self._start, self.end
        plain, extended = self._everything
        others = count = 0
        for subscription in some:
            if subscription.next > start:
                others += 1
                count += self._write(subscription)
            else:
                subscription.next = end
                subscription.outbox.write(extended if subscription.is_extended else plain)
        return count + (len(some) - others) * len(self._publications)

    def _write(self, subscription: Subscription) -> int:
        begin = max(subscription.next, self._start)
        if begin >= self.end:
            return 0
        subscription.next = self.end
        batch = self._select(begin).batch(subscription)
        if batch is None:
            return 0
        subscription.outbox.write(batch)
        return len(batch.events)

    @property
    def is_over(self) -> bool:
        return self._position >= len(self._subscriptions)

    def _select(self, begin: int) -> _Selection:
        selection = self._selections.get(begin)
        if selection is None:
            selection = self._selections[begin] = _Selection(self._publications[begin - self._start :])
        return selection
