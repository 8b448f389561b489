"""Recent publications in Redis, from which a node replays what it missed without a link."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from ...logs import line
from .. import Missed
from .keys import Keys
from .link import Link

_READ_AT_ONCE = 100

logger = logging.getLogger("tambur.server")


class _Entry(NamedTuple):
    """One entry of a log."""

    place: int
    channel: bytes
    data: bytes


class _Reader:
    """Reads the entries of a log between two places.

    Parameters:
        link: to Redis.
        key: that of the log.
        since: a place; only later entries are read.
        last: the place of the last entry that was added, whether it is still there or not.

    Attributes:
        has_gap: whether one of them was there and is not any more.
    """

    def __init__(self, link: Link, key: bytes, since: int, last: int) -> None:
        self._link = link
        self._key = key
        self._reached = since
        self._last = last
        self.has_gap = False

    async def read(self) -> AsyncIterator[_Entry]:
        while self._reached < self._last:
            entries = await self._link.call(
                "XRANGE", self._key, b"(%d" % self._reached, b"%d" % self._last, "COUNT", _READ_AT_ONCE
            )
            for entry_id, (_, before, _, channel, _, data) in entries:
                self.has_gap = self.has_gap or int(before) > self._reached
                self._reached = int(entry_id.partition(b"-")[0])
                yield _Entry(self._reached, channel, data)
            if not entries:
                self.has_gap = True
                return


class Recent:
    """The place up to which this node has processed its publications.

    While a new link catches up, publications that arrive meanwhile are held back until their turn.

    Parameters:
        keys: the cluster's keys.
        take: called with the channel and the data of each publication, and with the place of a replayed
            one, otherwise 0.
    """

    def __init__(self, keys: Keys, take: Callable[[bytes, bytes, int], None]) -> None:
        self._keys = keys
        self._take = take
        self.missed: Missed = lambda _: None
        """Called if Redis no longer has everything that this node missed."""
        self._place: int | None = None
        self._held: list[tuple[int, bytes, bytes]] | None = None

    def hold(self) -> None:
        """Hold publications back: a new link was opened, and :meth:`catch_up` follows."""
        self._held = []

    def receive(self, channel: bytes, data: bytes) -> bool:
        """Take a message if it is a publication; returns whether it is."""
        place, space, rest = data.partition(b" ")
        if not space or not place.isdigit():
            return False
        if self._held is not None:
            self._held.append((int(place), channel, rest))
        else:
            self._place = int(place)
            self._take(channel, rest, 0)
        return True

    def reach(self, place: bytes) -> None:
        """Note that this node has received all its publications up to a place."""
        if self._held is None:
            self._place = int(place)

    async def catch_up(self, link: Link) -> None:
        """Fetch the publications since the last link failed.

        Raises:
            BrokerUnavailableError: this link failed, too; the next one continues from there.
        """
        fields = await link.call("HMGET", self._keys.place, "first", "last", "recent", "direct")
        first, last, last_recent, last_direct = (int(field or 0) for field in fields)
        made_up_to = last
        if self._place is None:  # there was no link before
            self._place = last
            made_up_to = 0
        elif not first <= self._place <= last:
            self._place = first  # Redis lost its data, and everything that it has is new
        recent = _Reader(link, self._keys.recent, self._place, last_recent)
        direct = _Reader(link, self._keys.recent_direct, self._place, last_direct)
        try:
            # Of the direct messages there are few enough to read them all.
            waiting = deque([entry async for entry in direct.read()])
            async for entry in recent.read():
                while waiting and waiting[0].place < entry.place:
                    self._make_up_for(waiting.popleft())
                self._make_up_for(entry)
            for entry in waiting:
                self._make_up_for(entry)
        finally:
            # If the link failed, the next one begins behind the gap, and would not notice it.
            if recent.has_gap or direct.has_gap:
                logger.error(line("without Redis for too long, subscribers missed messages"))
                self.missed(not recent.has_gap)
        self._place = last
        held, self._held = self._held or [], None
        for place, channel, data in held:
            if place > made_up_to:
                self._place = place
                self._try_to_take(channel, data, 0)

    def _make_up_for(self, entry: _Entry) -> None:
        self._place = entry.place
        self._try_to_take(entry.channel, entry.data, entry.place)

    def _try_to_take(self, channel: bytes, data: bytes, place: int) -> None:
        try:
            self._take(channel, data, place)
        except Exception:
            told = channel.decode("utf-8", "replace")
            logger.exception(line("message from Redis lost", channel=told))
