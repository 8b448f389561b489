"""One node's part in a cluster over Redis, put together."""

from __future__ import annotations

from .. import Answer, Deliver, Missed
from ..ids import new_subscriber_id
from .broker import RedisBroker
from .calls import RedisNodeCalls
from .presence import RedisPresence
from .shard import Shard
from .urls import RedisUrl


class RedisBackend:
    """Broker, presence and node calls of one node, over one Redis.

    Parameters:
        url: where Redis is.
        max_claims: claimed nonces of each app that the cluster keeps; a publish past that is refused.
        node_timeout_s: seconds without a renewed lease after which the users of a node leave.
        max_lingering_users: how many lost connections of this node are still present at once.
    """

    def __init__(
        self, url: RedisUrl, *, max_claims: int, node_timeout_s: float, max_lingering_users: int
    ) -> None:
        self._shard = Shard(url, node_timeout_s=node_timeout_s)
        self.broker = RedisBroker(self._shard, max_claims=max_claims)
        self.presence = RedisPresence(
            self._shard, self.broker.streams, max_lingering_users=max_lingering_users
        )
        self.calls = RedisNodeCalls(self._shard)
        # Publications have a form that nothing else has, so the broker looks first at every message.
        self._shard.parts += [self.broker, self.presence, self.calls]

    @property
    def recovery(self) -> None:
        return None

    @property
    def unavailable_reason(self) -> str | None:
        return self._shard.unavailable_reason

    def new_subscriber_id(self) -> str:
        return new_subscriber_id(self._shard.node)

    async def start(self, deliver: Deliver, answer: Answer, missed: Missed = lambda _: None) -> None:
        self.broker.start(deliver, missed)
        self.presence.deliver = deliver
        self.calls.start(answer)
        await self._shard.start()

    async def close(self) -> None:
        self.presence.leave_all()
        await self._shard.flush()
        self.broker.deliver = self.presence.deliver = lambda _: None
        await self._shard.close()
