"""Nodes of a cluster, without hubs, over a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tambur.server import App, Limits
from tambur.server.broker import BrokerUnavailableError
from tambur.server.broker.factory import from_url
from tambur.server.broker.redis import scripts
from tambur.server.broker.redis.backend import RedisBackend
from tambur.server.broker.redis.shard import Shard

from .broker import RecordingBackend, claim, nobody_asks
from .redis_server import RedisServer


def backend(
    redis: RedisServer,
    *,
    max_claims: int = 100,
    node_timeout_s: float = 30,
    apps: Sequence[App] = (),
    limits: Limits | None = None,
) -> RedisBackend:
    made = from_url(
        redis.url(), max_claims=max_claims, node_timeout_s=node_timeout_s, apps=apps, limits=limits
    )
    assert isinstance(made, RedisBackend)
    return made


def shard(node: RecordingBackend) -> Shard:
    """The link of a node to Redis, for tests that break it."""
    assert isinstance(node.backend, RedisBackend)
    return node.backend._shard


def run(
    redis: RedisServer,
    count: int,
    scenario: Callable[..., Awaitable[None]],
    *,
    answer: Callable[[int, bytes], Awaitable[bytes]] | None = None,
    **options: Any,
) -> None:
    """Run a scenario of several nodes.

    Parameters:
        answer: answers the question of another node with the number of the one that is asked; ``None`` if nobody asks.
    """

    async def whole() -> None:
        nodes = [RecordingBackend(backend(redis, **options)) for _ in range(count)]
        for number, node in enumerate(nodes):
            await node.backend.start(
                node.deliver, nobody_asks if answer is None else functools.partial(answer, number)
            )
        try:
            await scenario(*nodes)
        finally:
            for node in nodes:
                await node.backend.close()

    asyncio.run(whole())


def end_lease(redis: RedisServer, node: RecordingBackend) -> None:
    """Let the time until which a node counts as alive be past, so that no test waits for it."""
    redis.cli("ZADD", "tambur:0:leases", "XX", "1", shard(node).node)


def end_linger(redis: RedisServer, *nodes: RecordingBackend) -> None:
    """Let the time for which the users of stopped nodes stay present be past."""
    for node in nodes:
        redis.cli("ZADD", "tambur:0:stopped", "XX", "1", shard(node).node)


async def renew_lease(node: RecordingBackend) -> None:
    """Renew the lease of a node now. Its link fails if Redis has another epoch than the node."""
    with contextlib.suppress(BrokerUnavailableError):
        await shard(node)._take_lease(shard(node).ready_link(), scripts.LEASE)


async def maintain(node: RecordingBackend) -> None:
    """Do now what a node does after it has renewed its lease."""
    for part in shard(node).parts:
        await part.maintain(shard(node).ready_link())


async def ready(node: RecordingBackend) -> None:
    """Wait until a node's broker works again."""
    while True:
        try:
            await node.broker.claimed(claim("any"))
        except BrokerUnavailableError:
            await asyncio.sleep(0.01)
        else:
            return
