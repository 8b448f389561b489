"""The history of places that a Redis holds, as one node knows it."""

from __future__ import annotations

import asyncio
import contextlib


class Epoch:
    """A node's knowledge of the epoch. docs/explanation/recovery.md explains it.

    Attributes:
        name: names the history; empty before the first link.
        process: the process of Redis that the node entered last; empty before the first link.
        seen: the highest place that the node has acknowledged or delivered.
    """

    def __init__(self) -> None:
        self.name = b""
        self.process = b""
        self.seen = 0
        self._proven = asyncio.Event()

    @property
    def is_proven(self) -> bool:
        """Whether Redis holds everything that any node has acknowledged or delivered in the epoch."""
        return self._proven.is_set()

    def see(self, place: int) -> None:
        """Note a place that the node acknowledges or delivers."""
        self.seen = max(self.seen, place)

    def enter(self, process: bytes, name: bytes, *, is_proven: bool) -> None:
        """Note the state of Redis after a new link was opened."""
        if name != self.name:
            self.seen = 0
        self.name, self.process = name, process
        self.update(is_proven=is_proven)

    def update(self, *, is_proven: bool) -> None:
        if is_proven:
            self._proven.set()
        else:
            self._proven.clear()

    async def wait_for_proof(self, timeout_s: float) -> None:
        """Return once the epoch is proven, or the time is over."""
        if not self.is_proven:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._proven.wait(), timeout_s)
