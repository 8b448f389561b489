"""What was published lately: a node that lost its link makes up from it for what it missed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...logs import line
from .. import Missed
from .keys import Keys
from .link import Link

_READ_AT_ONCE = 100

logger = logging.getLogger("tambur.server")


class Recent:
    """Where one node is among all publications: it has taken all up to a place that are for it.

    While a new link catches up, what is published meanwhile is held back until its turn has come.

    Parameters:
        keys: those of the cluster.
        take: called with the channel and the data of each publication, and with its place if it is one that
            had been missed, otherwise 0.
    """

    def __init__(self, keys: Keys, take: Callable[[bytes, bytes, int], None]) -> None:
        self._keys = keys
        self._take = take
        self.missed: Missed = lambda: None
        """Called if Redis does not have all any more of what is to be made up for."""
        self._place: int | None = None
        self._held: list[tuple[int, bytes, bytes]] | None = None

    def hold(self) -> None:
        """There is a new link, and :meth:`catch_up` is to come."""
        self._held = []

    def receive(self, channel: bytes, data: bytes) -> bool:
        """Take a message if it is a publication, in its turn; returns whether it is one."""
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
        """All publications up to a place that are for this node have been received."""
        if self._held is None:
            self._place = int(place)

    async def catch_up(self, link: Link) -> None:
        """Take what was published since the last link failed.

        Raises:
            BrokerUnavailableError: this link failed, too; the next one goes on from there.
        """
        first, last = (int(p or 0) for p in await link.call("HMGET", self._keys.place, "first", "last"))
        if self._place is None:
            self._place = last  # there was no link before
        elif not first <= self._place <= last:
            self._place = first  # Redis has forgotten what it knew, and all that it knows is new
        is_all = True
        taken = 0
        while entries := await link.call(
            "XRANGE", self._keys.recent, b"(%d" % self._place, "+", "COUNT", _READ_AT_ONCE
        ):
            for entry_id, (_, before, _, channel, _, data) in entries:
                if int(before) > self._place:
                    is_all = False
                self._place = taken = int(entry_id.partition(b"-")[0])
                self._try_to_take(channel, data, taken)
        if last > self._place:
            self._place = last
            is_all = False
        held, self._held = self._held or [], None
        for place, channel, data in held:
            if place > taken:
                self._place = place
                self._try_to_take(channel, data, 0)
        if not is_all:
            logger.error(line("without Redis for too long, subscribers missed messages"))
            self.missed()

    def _try_to_take(self, channel: bytes, data: bytes, place: int) -> None:
        try:
            self._take(channel, data, place)
        except Exception:
            told = channel.decode("utf-8", "replace")
            logger.exception(line("message from Redis lost", channel=told))
