"""Steps begin a few at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
import itertools

from tambur.server.turnstile import Turnstile

STEPS_PER_TURN = 4


def test_steps_begin_in_their_order_and_everything_else_runs_in_between() -> None:
    async def scenario() -> None:
        turnstile = Turnstile(STEPS_PER_TURN)
        begun: list[int] = []
        seen: list[int] = []

        async def step(number: int) -> None:
            await turnstile.wait()
            begun.append(number)

        tasks = []
        for number in range(0, 6 * STEPS_PER_TURN, 2):
            turnstile.pass_through(lambda number=number: begun.append(number))  # type: ignore[misc]
            tasks.append(asyncio.create_task(step(number + 1)))
        while len(begun) < 6 * STEPS_PER_TURN:
            seen.append(len(begun))
            await asyncio.sleep(0)
        callbacks = [number for number in begun if number % 2 == 0]
        assert callbacks == sorted(callbacks)
        assert [n for n in begun if n % 2] == sorted(n for n in begun if n % 2)
        # A task continues in the turn after that in which it was let through.
        assert all(later - earlier <= 2 * STEPS_PER_TURN for earlier, later in itertools.pairwise(seen))
        assert len(seen) >= 6
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_a_step_begins_at_once_while_few_do() -> None:
    async def scenario() -> None:
        turnstile = Turnstile(STEPS_PER_TURN)
        begun: list[None] = []
        for _ in range(3):
            for count in range(1, STEPS_PER_TURN + 1):
                turnstile.pass_through(lambda: begun.append(None))
                assert len(begun) == count
            turnstile.pass_through(lambda: begun.append(None))
            assert len(begun) == STEPS_PER_TURN
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(begun) == STEPS_PER_TURN + 1
            begun.clear()

    asyncio.run(scenario())


def test_a_step_that_is_cancelled_holds_up_no_other() -> None:
    async def scenario() -> None:
        turnstile = Turnstile(STEPS_PER_TURN)
        waiting = [asyncio.create_task(turnstile.wait()) for _ in range(3 * STEPS_PER_TURN)]
        await asyncio.sleep(0)
        for task in waiting[STEPS_PER_TURN:]:
            task.cancel()
        await asyncio.wait_for(turnstile.wait(), 60)
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [result is None for result in done] == [True] * STEPS_PER_TURN + [False] * 2 * STEPS_PER_TURN

    asyncio.run(scenario())
