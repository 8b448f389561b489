"""Replay: messages from before a subscription, sent to its subscriber.

A replay waits for its subscriber to read, so it needs little memory and delays no other subscriber.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from .broker import BrokerUnavailableError, Publication
from .outbox import Batch, Outbox

MAX_UNSENT_BYTES = 64 * 1024
"""The most unsent bytes before the next part is written, and the size of a part."""

WAIT_S = 0.01
"""How long to wait before looking again whether the subscriber has read enough, in seconds."""


class ReplayLostError(BrokerUnavailableError):
    """The rest of a replay is not kept any more, or the subscriber is gone."""

    def __init__(self) -> None:
        super().__init__("the rest of the replay was lost", retry_after_s=1)


class Replay:
    """One replay to one outbox.

    Parameters:
        outbox: the subscriber's outbox.
        extend: creates the event with its position.
        receives: whether a message is for the subscriber.

    Attributes:
        count: how many messages were written.
    """

    def __init__(
        self,
        outbox: Outbox,
        extend: Callable[[Publication], bytes],
        receives: Callable[[Publication], bool],
    ) -> None:
        self._outbox = outbox
        self._extend = extend
        self._receives = receives
        self.count = 0

    async def write(self, publications: Iterable[Publication]) -> None:
        """Write those messages that are for the subscriber.

        Raises:
            ReplayLostError: the subscriber is gone.
        """
        part: list[bytes] = []
        size = 0
        for publication in publications:
            if not self._receives(publication):
                continue
            if size > MAX_UNSENT_BYTES:
                await self._write_part(part)
                part, size = [], 0
            part.append(self._extend(publication))
            size += len(part[-1])
        if part:
            await self._write_part(part)

    async def _write_part(self, part: Sequence[bytes]) -> None:
        # No transport tells reliably that it has drained.
        while self._outbox.is_open and self._outbox.unsent_bytes > MAX_UNSENT_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(WAIT_S)
        if not self._outbox.is_open:
            raise ReplayLostError
        self._outbox.write(Batch(tuple(part)))
        self.count += len(part)
        await asyncio.sleep(0)  # let other tasks run

    async def catch_up(self, since: Callable[[int], Sequence[Publication] | None], place: int) -> bool:
        """Write the publications after a place, until there are no more.

        No further one arrives before the caller continues, in the same turn of the event loop.

        Parameters:
            since: returns the publications after a place; ``None`` if some may be lost.

        Returns:
            False if some may be lost from the beginning. Then nothing is written.

        Raises:
            ReplayLostError: some publications were lost meanwhile, or the subscriber is gone.
        """
        found = since(place)
        if found is None:
            return False
        while found:
            await self.write(found)
            found = since(found[-1].place)
        if found is None:
            raise ReplayLostError
        return True

    async def finish(self, since: Callable[[int], Sequence[Publication] | None], place: int) -> None:
        """Write the publications after a place that the replay has reached; see :meth:`catch_up`.

        Raises:
            ReplayLostError: some publications are lost, or the subscriber is gone.
        """
        if not await self.catch_up(since, place):
            raise ReplayLostError
