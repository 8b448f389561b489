"""One node's part in a cluster over Redis, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...config import App, Limits
from .. import Answer, Deliver, Logs, Missed, Moved, Revoked, ignore_revoked
from ..ids import new_subscriber_id
from .broker import RedisBroker
from .calls import RedisNodeCalls
from .logs import LogReader
from .presence import RedisPresence
from .recovery import RedisRecovery
from .revocations import RedisRevocations
from .rules import Rules
from .shard import Shard
from .urls import RedisUrl
from .webhooks import RedisWebhooks


class RedisBackend:
    """Broker, presence and node calls of one node, over one Redis.

    Parameters:
        url: where Redis is.
        max_claims: claimed nonces of each app that the cluster keeps; a publish past that is refused.
        node_timeout_s: seconds without a renewed lease after which the users of a node leave.
        apps: apps with webhooks, or with their own rules for history.
        limits: the limits for all others.
    """

    def __init__(
        self,
        url: RedisUrl,
        *,
        max_claims: int,
        node_timeout_s: float,
        apps: Sequence[App],
        limits: Limits,
    ) -> None:
        self._shard = Shard(url, node_timeout_s=node_timeout_s)
        rules = Rules(apps, limits)
        reader = LogReader(self._shard, rules)
        self.calls = RedisNodeCalls(self._shard)
        self.recovery = RedisRecovery(self._shard, reader, rules, apps, self.calls)
        self.broker = RedisBroker(self._shard, rules, reader, self.recovery, max_claims=max_claims)
        self.webhooks = RedisWebhooks(self._shard, apps, max_events=limits.max_webhook_events)
        self.presence = RedisPresence(
            self._shard,
            self.broker.streams,
            self.webhooks,
            max_lingering_users=limits.max_lingering_users,
        )
        self.revocations = RedisRevocations(self._shard, apps, limits)
        # Publications have a form that nothing else has, so the broker looks first at every message.
        self._shard.parts += [self.broker, self.presence, self.calls, self.recovery, self.revocations]

    @property
    def unavailable_reason(self) -> str | None:
        return self._shard.unavailable_reason

    def new_subscriber_id(self) -> str:
        return new_subscriber_id(self._shard.node)

    async def start(
        self,
        deliver: Deliver,
        answer: Answer,
        missed: Missed = lambda _: None,
        moved: Moved = lambda _, __: None,
        read_logs: Callable[[], Logs] = tuple,
        *,
        revoked: Revoked = ignore_revoked,
    ) -> None:
        self.broker.start(deliver, missed, moved, read_logs)
        self.presence.deliver = deliver
        self.calls.start(answer, moved, self.recovery.owners.lose)
        self.revocations.revoked = revoked
        await self._shard.start()

    async def close(self) -> None:
        self.presence.leave_all()
        await self._shard.flush()
        self.broker.deliver = self.presence.deliver = lambda _: None
        await self._shard.close()
