"""The sessions that were resumed on this node: Redis sends their private messages here."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from .. import AppKey, BrokerUnavailableError, private_log
from . import scripts
from .calls import RedisNodeCalls
from .keys import scope
from .link import Link
from .logs import Log
from .shard import Shard

TAKEOVER_WAIT_S = 1.0
"""How long a resumed session waits until its old node has closed the old connection, in seconds."""

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
        # Of sessions that are being resumed here and that other nodes have resumed: how often then.
        self._lost: dict[Log, int] = {}

    async def resume(self, app: AppKey, subscriber_id: str, number: int) -> bool:
        shard, link = self._shard, self._shard.ready_link()
        arguments = shard.deadline(), shard.keys.prefix, scope(app), subscriber_id, shard.node, number
        log = Log(app, private_log(subscriber_id))
        self._resuming[log] += 1
        try:
            answer = await link.call(*scripts.RESUME(*arguments, self._own_s, keys=()))
            if answer == 0:
                return False
            owner, resumes = answer[0].decode(), answer[1]
            if self._lost.get(log, 0) > resumes:  # what another node did afterwards arrived before the answer
                return False
            self._owned[log] = owned = _Owned(number, resumes)
            if owner != shard.node:
                # A node that does not answer in time finds out before it delivers private messages again.
                with contextlib.suppress(BrokerUnavailableError):
                    await self._calls.close_moved(
                        owner, app, subscriber_id, resumes, timeout_s=TAKEOVER_WAIT_S
                    )
        finally:
            self._resuming[log] -= 1
            if not self._resuming[log]:
                del self._resuming[log]
                self._lost.pop(log, None)
        return self._owned.get(log) is owned  # unless another connection has continued it meanwhile

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
