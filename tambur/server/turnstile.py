"""Handshakes and commands begin a few at a time, so that publishing continues while thousands connect."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turnstile:
    """Lets steps begin in the order in which they came, a few in each turn of the event loop.

    asyncio handles everything that has arrived before it looks again. If thousands of clients return at once,
    one such turn takes so long that as many wait for the next one. A publish takes several turns.

    Each connection has at most one step that waits.

    Parameters:
        steps_per_turn: how many steps begin in one turn.
    """

    def __init__(self, steps_per_turn: int) -> None:
        self._per_turn = steps_per_turn
        self._begun = 0  # in this turn
        self._waiting: deque[Callable[[], None]] = deque()

    def pass_through(self, step: Callable[[], None]) -> None:
        """Call a step now, or in a later turn if enough have begun in this one."""
        if self._begun < self._per_turn and not self._waiting:
            self._count()
            step()
        else:
            self._waiting.append(step)

    async def wait(self) -> None:
        """Return at once, or in a later turn if enough steps have begun in this one."""
        if self._begun < self._per_turn and not self._waiting:
            self._count()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(lambda: None if turn.done() else turn.set_result(None))
        await turn

    def _count(self) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun += 1

    def _next_turn(self) -> None:
        self._begun = 0
        for _ in range(min(self._per_turn, len(self._waiting))):
            self._count()
            self._waiting.popleft()()
