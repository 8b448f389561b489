"""The memory that a process holds for its clients, and which connections are closed when it is too much."""

from __future__ import annotations

import heapq
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Protocol

from .logs import line

UNCOUNTED_BYTES = 16 * 1024
"""How much the buffers of a connection may hold without being counted, since counting takes its time."""

STREAM_BYTES = 1750
"""The memory of a stream on a node, without its subscriptions: as measured with Python 3.11."""

SUBSCRIPTION_BYTES = 190
"""The memory of a subscription, without the stream's name: as measured with Python 3.11."""

logger = logging.getLogger("tambur.server")


def subscription_bytes(stream: str) -> int:
    """The memory of one subscription of a stream. Each holds its own copy of the stream's name."""
    return SUBSCRIPTION_BYTES + sys.getsizeof(stream)


def buffer_bytes(held_bytes: int) -> int:
    """The memory of buffers for so many bytes: as measured, up to a quarter more, since they grow ahead."""
    return held_bytes * 5 // 4


class Holder(Protocol):
    """A connection, as far as memory is concerned.

    Attributes:
        counted_bytes: what :class:`Memory` has counted of its buffers; 0 at first.
    """

    counted_bytes: int

    @property
    def buffered_bytes(self) -> int:
        """How many bytes its buffers hold now: unfinished requests and messages, commands, unsent answers."""
        ...

    @property
    def subscription_count(self) -> int:
        """To how many streams it is subscribed."""
        ...

    def shed(self) -> None:
        """End the connection, and forget what its buffers hold. It neither waits nor raises.

        The hub may be in the middle of writing, so the connection leaves its streams later.
        """
        ...


class Memory:
    """Counts what clients have the process hold: subscriptions and full buffers.

    When that is more than allowed, the connections that hold most are ended, until an eighth is free. So a
    connection that holds little is safe from those that hold much.

    Attributes:
        held_bytes: what is counted now.
        shed_connections: how many connections have been ended.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self.shed_connections = 0
        self._max_bytes: float = float("inf")
        self._holders: Callable[[], Iterable[Holder]] = tuple
        # Those that have been ended, but still hold something.
        self._leaving: list[Holder] = []
        self._is_shedding = False

    def limit(self, max_held_bytes: int, holders: Callable[[], Iterable[Holder]]) -> None:
        """Allow only so much from now on.

        Parameters:
            max_held_bytes: in bytes.
            holders: returns all connections.
        """
        self._max_bytes = max_held_bytes
        self._holders = holders

    def add(self, count: int) -> None:
        """Count so many bytes more, or fewer."""
        self.held_bytes += count
        if self.held_bytes > self._max_bytes and not self._is_shedding:
            self._is_shedding = True
            try:
                self._shed_some()
            finally:
                self._is_shedding = False

    def count(self, holder: Holder) -> None:
        """Count what the buffers of a connection hold now, instead of what they held last time."""
        held = holder.buffered_bytes
        counted = buffer_bytes(held) if held > UNCOUNTED_BYTES else 0
        difference = counted - holder.counted_bytes
        holder.counted_bytes = counted
        if difference:
            self.add(difference)

    def forget(self, holder: Holder) -> None:
        """Count nothing more of a connection that is lost."""
        self.add(-holder.counted_bytes)
        holder.counted_bytes = 0

    def _shed_some(self) -> None:
        self._leaving = [holder for holder in self._leaving if _held_bytes(holder)]
        allowed = self._max_bytes + sum(map(_held_bytes, self._leaving))
        if self.held_bytes <= allowed:
            return
        holders = list(self._holders())
        for holder in holders:
            self.count(holder)  # some have less by now
        before = self.held_bytes
        if before <= allowed:
            return
        excess = before - allowed + self._max_bytes / 8
        leaving = set(map(id, self._leaving))
        ranked = [(-_held_bytes(h), i) for i, h in enumerate(holders) if id(h) not in leaving]
        heapq.heapify(ranked)
        shed = 0
        while excess > 0 and ranked:
            held, i = heapq.heappop(ranked)
            if not held:
                break
            excess += held
            holders[i].shed()
            self._leaving.append(holders[i])
            shed += 1
        self.shed_connections += shed
        facts = {"connections": shed, "held_bytes": before, "max_held_bytes": self._max_bytes}
        logger.warning(line("connections closed, clients hold too much memory", **facts))


def _held_bytes(holder: Holder) -> int:
    return holder.counted_bytes + holder.subscription_count * (STREAM_BYTES + SUBSCRIPTION_BYTES)
