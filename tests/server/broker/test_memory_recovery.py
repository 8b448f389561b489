"""The sessions that one process remembers."""

from __future__ import annotations

import asyncio

from tambur.server import Limits
from tambur.server.broker.memory_recovery import MemoryRecovery
from tests.support.broker import APP


def test_the_used_keys_of_a_limited_number_of_sessions_are_remembered() -> None:
    recovery = MemoryRecovery((), Limits(max_lost_sessions=2))

    def resume(subscriber_id: str, number: int) -> bool:
        return bool(asyncio.run(recovery.resume(APP, subscriber_id, number)))

    for subscriber_id in ("a", "b", "a", "c"):  # a was used after b
        assert resume(subscriber_id, 5)
    assert not resume("a", 4), "a later key was used"
    assert not resume("c", 4)
    assert resume("b", 4), "the oldest of three is forgotten"
    assert resume("d", 1)
    assert len(recovery._used) == 2
