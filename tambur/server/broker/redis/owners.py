"""The sessions that were resumed on this node: Redis sends their private messages here."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from .. import AppKey, private_log
from . import scripts
from .calls import RedisNodeCalls
from .keys import scope
from .link import Link
from .logs import Log
from .shard import Shard

TAKEOVER_WAIT_S = 1.0
"""How long a resumed session waits until its old node has closed the old connection, in seconds."""

RESUMES_AT_ONCE = 16
"""How many resumes Redis has to answer at once. A publish waits until it has answered them."""

NAMES_AT_ONCE = 200
"""Logs or sessions that one script looks at; everything else in Redis waits for it."""

TELL_SHARE = 8
"""A node tells this many times in ``position_ttl_s`` and ``session_ttl_s`` which logs and sessions it has."""


class _Owned(NamedTuple):
    """A session that was resumed on this node.

    Attributes:
        number: of the key that was used.
        resumes: how often the session had been resumed then.
    """

    number: int
    resumes: int


class Owners:
    """Takes sessions over from other nodes, and gives them up to others.

    Parameters:
        shard: the Redis.
        calls: reach the other nodes.
        session_ttl_s: how long a lost session can be resumed.
    """

    def __init__(self, shard: Shard, calls: RedisNodeCalls, *, session_ttl_s: float) -> None:
        self._shard = shard
        self._calls = calls
        self._session_ttl_s = session_ttl_s
        # By the log of their private messages.
        self._owned: dict[Log, _Owned] = {}
        self._resuming: Counter[Log] = Counter()
        self._calling = asyncio.Semaphore(RESUMES_AT_ONCE)
        # Of sessions that are being resumed here and that other nodes have resumed: how often then.
        self._lost: dict[Log, int] = {}

    async def resume(self, link: Link, log: Log, number: int, reading: Sequence[Any]) -> tuple[int, Any]:
        """Take a session over from the node that has it, and read its log in the same step.

        Parameters:
            log: of its private messages.
            number: of the key that the client has.
            reading: the arguments of the script that concern the log.

        Returns:
            How often the session was resumed, and the part of the log that the script read, or 0 for none.
            Two zeros if the session was ended, or a later key was used.

        Raises:
            BrokerUnavailableError: nothing has changed.
        """
        shard, app, subscriber_id = self._shard, log.app, log.name.removeprefix("private:")
        arguments = shard.keys.prefix, scope(app), subscriber_id, shard.node, number
        self._resuming[log] += 1
        try:
            with self._calls.moving(app, subscriber_id) as (question, answered):
                async with self._calling:
                    answer = await link.call(
                        *scripts.RESUME(
                            shard.deadline(), *arguments, self._own_s, *reading, question, keys=()
                        )
                    )
                if answer == 0:
                    return 0, 0
                asked, resumes, found = answer
                # News of a later takeover may have arrived before the answer.
                if self._lost.get(log, 0) > resumes:
                    return 0, 0
                self._owned[log] = owned = _Owned(number, resumes)
                if asked:
                    # A node that does not answer in time finds out before it delivers private messages again.
                    await asyncio.wait(
                        (answered, link.failed), timeout=TAKEOVER_WAIT_S, return_when=asyncio.FIRST_COMPLETED
                    )
        finally:
            self._resuming[log] -= 1
            if not self._resuming[log]:
                del self._resuming[log]
                self._lost.pop(log, None)
        # Another connection may have continued it meanwhile.
        return (resumes, found) if self._owned.get(log) is owned else (0, 0)

    def lose(self, app: AppKey, subscriber_id: str, resumes: int) -> bool:
        """Note that another node has continued a session; returns whether it is not here again.

        Parameters:
            resumes: how often the session had been resumed then.
        """
        log = Log(app, private_log(subscriber_id))
        owned = self._owned.get(log)
        if owned is not None and owned.resumes > resumes:
            return False
        self._owned.pop(log, None)
        if log in self._resuming:
            self._lost[log] = max(resumes, self._lost.get(log, 0))
        return True

    @property
    def _own_s(self) -> int:
        return round(self._session_ttl_s * (1 + 2 / TELL_SHARE)) + 1

    async def confirm(self, link: Link) -> list[Log]:
        """Tell Redis which sessions were resumed here; return those that other nodes have resumed since."""
        moved = []
        for some in batches(list(self._owned.items())):
            names = [(scope(log.app), log.name.removeprefix("private:"), *owned) for log, owned in some]
            arguments = itertools.chain.from_iterable(names)
            shard = self._shard
            found = await link.call(
                *scripts.OWN(shard.keys.prefix, shard.node, self._own_s, *arguments, keys=())
            )
            for log, owned in (some[i] for i in found):
                if self._owned.get(log) is owned:
                    del self._owned[log]
                    moved.append(log)
        return moved

    def release(self, log: Log) -> None:
        """Forget a session, by the log of its private messages: no connection has it any more."""
        if log not in self._resuming:
            self._owned.pop(log, None)


_T = TypeVar("_T")


def batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Some items at once, for one script each."""
    for i in range(0, len(items), NAMES_AT_ONCE):
        yield items[i : i + NAMES_AT_ONCE]
