"""Disconnected subscribers and users, remembered in Redis."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from ...config import App, Limits
from ...revocations import subscriber_ttl_s, user_ttl_s
from .. import AppKey, BrokerUnavailableError, Revoked
from . import scripts
from .link import RETRY_AFTER_S, Link
from .shard import NodePart, Shard

NAMES_AT_ONCE = 1000
"""How many names one call reads or writes."""


class RedisRevocations(NodePart):
    """The memory of the cluster. Each node keeps a copy, and reads what it missed with each new link.

    Parameters:
        shard: the Redis.
        apps: all apps.
        limits: say how long sessions last.
    """

    def __init__(self, shard: Shard, apps: Sequence[App], limits: Limits) -> None:
        self._shard = shard
        self._apps = apps
        self._ttls_ms = round(subscriber_ttl_s(limits) * 1000), round(user_ttl_s(limits) * 1000)
        self._last_ms = 0
        self.revoked: Revoked | None = None

    def now_ms(self) -> int:
        # The shard corrects its idea of Redis' clock from time to time.
        self._last_ms = max(self._last_ms, self._shard.now_us() // 1000)
        return self._last_ms

    async def revoke(self, app: AppKey, subscriber_ids: Collection[str], user_id: str | None) -> int:
        link = self._shard.link  # it may not be ready, while this node catches up
        if link is None:
            raise BrokerUnavailableError("the broker cannot be reached", RETRY_AFTER_S)
        names = list(subscriber_ids)
        stored_ms = 0
        for i in range(0, max(1, len(names)), NAMES_AT_ONCE):
            some = names[i : i + NAMES_AT_ONCE]
            arguments = self._shard.deadline(), *self._ttls_ms, user_id or "", *some
            stored_ms = await link.call(*scripts.REVOKE(*arguments, keys=self._shard.keys.revoked(app)))
        return stored_ms

    # Callbacks of the link

    async def catch_up(self, link: Link, *, in_doubt: bool) -> None:  # noqa: ARG002
        """End the sessions that were revoked while this node was away."""
        if self.revoked is None:
            return
        now_ms = self.now_ms()
        for app in self._apps:
            subscriber_ids, users = [
                await self._read(link, key, now_ms - ttl_ms)
                for key, ttl_ms in zip(self._shard.keys.revoked(app.key), self._ttls_ms, strict=True)
            ]
            # Redis may have lost its data.
            lost = await self.revoked(app.key, subscriber_ids, users)
            for key, ttl_ms, times in zip(
                self._shard.keys.revoked(app.key), self._ttls_ms, lost, strict=True
            ):
                await self._restore(link, key, ttl_ms, times)

    async def _read(self, link: Link, key: bytes, since_ms: int) -> dict[str, int]:
        """All names of a key, with their times.

        The newest are read first, so that a disconnect between two calls hides no other name. The node that
        has it asks this one to end those sessions.
        """
        found: list[tuple[str, int]] = []
        for start in itertools.count(0, NAMES_AT_ONCE):
            limits = b"WITHSCORES", b"LIMIT", start, NAMES_AT_ONCE
            some = await link.call("ZREVRANGEBYSCORE", key, "+inf", since_ms, *limits)
            found += [(name.decode(), int(score)) for name, score in zip(some[::2], some[1::2], strict=True)]
            if len(some) < 2 * NAMES_AT_ONCE:
                break
        return dict(reversed(found))  # as they are remembered: the oldest first

    async def _restore(self, link: Link, key: bytes, ttl_ms: int, times: dict[str, int]) -> None:
        pairs = [word for name, at_ms in times.items() for word in (at_ms, name)]
        for i in range(0, len(pairs), 2 * NAMES_AT_ONCE):
            await link.call("ZADD", key, "GT", *pairs[i : i + 2 * NAMES_AT_ONCE])
        if pairs:
            await link.call("PEXPIRE", key, ttl_ms)
