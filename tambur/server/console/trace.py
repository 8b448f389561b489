"""The way of the newest publications of one stream on this node, step by step."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ...protocol.messages import message_json
from ...protocol.names import Kind
from ..broker import Publication
from ..stream import Stream

KEPT_PUBLICATIONS = 100

MAX_NAMED = 20
"""How many of those that a publication cut off are named."""

MAX_TEXT_CODE_POINTS = 300
"""How much of a message the console shows."""


@dataclass(slots=True, eq=False)
class Traced:
    """One publication. Times are in seconds by a clock that only goes forward.

    Attributes:
        id: counts the publications of the trace.
        at: when it was first seen, in seconds since 1970.
        publication: the publication, with its place once that is known.
        changed: grows with each change in the trace.
        number: its number in the queue of the stream; -1 until it was delivered to this node.
        subscribers: how many subscribers of this node it is for; ``None`` until it was delivered.
        is_claimed: whether this node took the request, or the console published it.
        nodes: how many nodes listened; ``None`` if this node did not take the request, or for a batch.
        check_s: how long this node checked the request; ``None`` as before.
        broker_s: how long the broker took; ``None`` as before.
        delivered_at: when it was delivered to this node; ``None`` until then.
        writing_at: when the node began to write it to subscribers; ``None`` until then.
        written_at: when it was written to all subscribers; ``None`` until then.
        cut_off: how many subscribers were cut off meanwhile because they read too slowly.
        cut_off_users: the users of some of them.
    """

    id: int
    at: float
    publication: Publication
    changed: int
    number: int = -1
    subscribers: int | None = None
    is_claimed: bool = False
    nodes: int | None = None
    check_s: float | None = None
    broker_s: float | None = None
    delivered_at: float | None = None
    writing_at: float | None = None
    written_at: float | None = None
    cut_off: int = 0
    cut_off_users: tuple[str, ...] = ()

    @property
    def key(self) -> str | None:
        """The name of the publication on all nodes: its place.

        ``None`` while that is not known, and for a presence event, which has none.
        """
        return str(self.publication.place) if self.publication.place else None

    def as_json(self) -> dict[str, object]:
        """The publication as the page gets it."""
        publication = self.publication
        kind, user_id, text = publication.kind, publication.user_id, None
        if kind is Kind.PRESENCE:
            text = str(json.loads(publication.event)[3][-1])
        elif kind is not Kind.DIRECT:  # whose text is between two users
            text = json.loads(message_json(kind, publication.name, publication.event))
        return {
            "id": self.id,
            "at": round(self.at, 3),
            "kind": kind.value,
            "user": user_id,
            "text": None if text is None else text[:MAX_TEXT_CODE_POINTS],
            "bytes": len(publication.event),
            "excluding": publication.excluded is not None,
            **self.report(),
        }

    def report(self) -> dict[str, object]:
        """The publication's way on this node, with its steps in milliseconds."""
        return {
            "key": self.key,
            "claimed": self.is_claimed,
            "nodes": self.nodes,
            "subscribers": self.subscribers,
            "cut_off": self.cut_off,
            "cut_off_users": self.cut_off_users,
            "check_ms": _ms(0.0, self.check_s),
            "broker_ms": _ms(0.0, self.broker_s),
            "wait_ms": _ms(self.delivered_at, self.writing_at),
            "write_ms": _ms(self.writing_at, self.written_at),
        }


class Trace:
    """The newest publications of one stream.

    A publication and its request are known from two sides, in any order. They have the same place. A batch
    comes after its deliveries, without places: its messages have the same events.

    Attributes:
        viewers: how many viewers follow it.
        stream: the stream on this node, whose queue has the numbers; ``None`` until something was delivered.
        changed: the number of the last change.
    """

    def __init__(self) -> None:
        self._publications: deque[Traced] = deque()
        # Publications wait in these, so that none is searched for among all. The first two are by place.
        self._undelivered: dict[int, Traced] = {}
        self._unclaimed: dict[int, Traced] = {}
        self._unwritten: deque[Traced] = deque(maxlen=KEPT_PUBLICATIONS)
        self._writing: deque[Traced] = deque(maxlen=KEPT_PUBLICATIONS)
        self._ids = itertools.count()
        self.viewers = 0
        self.stream: Stream | None = None
        self.changed = 0

    def since(self, changed: int) -> list[Traced]:
        """The publications that have changed after a change."""
        return [traced for traced in self._publications if traced.changed > changed]

    def deliver(
        self, publication: Publication, number: int, subscribers: int, *, at: float, now: float
    ) -> None:
        """A publication was delivered to this node.

        Parameters:
            number: its number in the queue of the stream. If it does not grow, the queue is another one.
            subscribers: how many subscribers of this node it is for.
            at: the time in seconds since 1970.
            now: the time by the clock of the steps.
        """
        place = publication.place
        traced = self._undelivered.pop(place, None)
        if traced is None:
            traced = self._add(publication, at)
            if place:
                self._unclaimed[place] = traced
        traced.publication = publication
        traced.number, traced.subscribers, traced.delivered_at = number, subscribers, now
        last = self._unwritten or self._writing
        if last and last[-1].number >= number:
            self._unwritten.clear()
            self._writing.clear()
        self._unwritten.append(traced)
        self._change(traced)

    def claim(
        self,
        publication: Publication,
        *,
        at: float,
        place: int = 0,
        nodes: int | None = None,
        check_s: float | None = None,
        broker_s: float | None = None,
    ) -> None:
        """This node took the request of a publication; the parameters are those of :class:`Traced`.

        Parameters:
            place: its place; 0 if the request was a batch, which does not know the places.
        """
        traced = self._unclaimed.pop(place, None) if place else self._like(publication)
        if traced is None:
            if not place:
                return  # of a batch that is longer than the trace
            traced = self._add(publication._replace(place=place), at)
            self._undelivered[place] = traced
        traced.is_claimed, traced.nodes, traced.check_s, traced.broker_s = True, nodes, check_s, broker_s
        self._change(traced)

    def write(
        self,
        *,
        began: float,
        now: float,
        writing: int,
        written: int,
        cut_off: int,
        cut_off_users: Sequence[str] = (),
    ) -> None:
        """The node has written to some subscribers.

        Parameters:
            began: when it began, by the clock of the steps.
            now: the time by that clock.
            writing: the number of the first publication that it has not begun to write.
            written: the number of the first publication that it has not written to all subscribers.
            cut_off: how many subscribers were cut off for it.
            cut_off_users: the users of those that had any.
        """
        while self._unwritten and self._unwritten[0].number < writing:
            traced = self._unwritten.popleft()
            traced.writing_at = began
            self._writing.append(traced)
            self._change(traced)
        for traced in self._writing if cut_off else ():
            traced.cut_off += cut_off
            traced.cut_off_users = (*traced.cut_off_users, *cut_off_users)[:MAX_NAMED]
            self._change(traced)
        while self._writing and self._writing[0].number < written:
            traced = self._writing.popleft()
            traced.written_at = now
            self._change(traced)

    def _add(self, publication: Publication, at: float) -> Traced:
        if len(self._publications) == KEPT_PUBLICATIONS:
            oldest = self._publications.popleft()
            for waiting in (self._undelivered, self._unclaimed):
                waiting.pop(oldest.publication.place, None)
        traced = Traced(next(self._ids), at, publication, 0)
        self._publications.append(traced)
        return traced

    def _like(self, publication: Publication) -> Traced | None:
        """The newest publication with the same event that is not claimed."""
        for traced in reversed(self._publications):
            other = traced.publication
            if (
                not traced.is_claimed
                and other.event == publication.event
                and other.kind is publication.kind
                and other.excluded == publication.excluded
            ):
                self._unclaimed.pop(other.place, None)
                return traced
        return None

    def _change(self, traced: Traced) -> None:
        self.changed += 1
        traced.changed = self.changed


def _ms(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round((end - begin) * 1000, 3)
