"""The memory and processor time that a connection takes of a node and of its Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from redis import Redis

from tambur import Tambur

from .report import Section, interleave, table
from .resuming import Subscriber, connect_all
from .servers import redis, tambur

ROOM = 10
"""How many users are present on a stream."""

_WARMING_UP = 100
_AT_ONCE = 10


class _Kind(NamedTuple):
    """Subscribers of which so many share each stream."""

    sharing: int
    is_extended: bool = False
    is_present: bool = False


_KINDS = {
    "a stream that all share": _Kind(1_000_000),
    "a stream of its own": _Kind(1),
    "extended, a stream that all share": _Kind(1_000_000, is_extended=True),
    "extended, a stream of its own": _Kind(1, is_extended=True),
    f"extended, present among {ROOM} users": _Kind(ROOM, is_extended=True, is_present=True),
}


def connections(*, quick: bool) -> Section:
    """The memory of an idle connection, and the processor time of opening it."""
    count, rounds, settled_s = (100, 1, 0.1) if quick else (5000, 3, 0.5)

    def measure(kind: _Kind) -> dict[str, float]:
        return asyncio.run(_measure(kind, count, settled_s))

    found = interleave({name: partial(measure, kind) for name, kind in _KINDS.items()}, rounds)
    figures = {name: itemgetter(name) for name in found[next(iter(_KINDS))][0]}
    return Section(
        "Connections",
        f"{count:,} connections to one node over Redis, each with one subscription. Memory of the node is what is private to its process, and that "
        "of Redis its `used_memory`. Both are without what there was before. Processor time is of connecting and subscribing.",
        [table("connection", found, figures, against="", ratios=0)],
    )


async def _measure(kind: _Kind, count: int, settled_s: float) -> dict[str, float]:
    with (
        redis() as (broker, port),
        tambur(broker=f"redis://127.0.0.1:{port}") as server,
        Redis(port=port) as client,
        Tambur.from_url(server.url) as signer,
    ):

        def subscriber(stream: str, number: int) -> Subscriber:
            def presence(subscriber_id: str) -> dict[str, Any]:
                user = f"user-{number}"
                return {"presence": [user, signer.generate_presence_token(stream, user, subscriber_id)]}

            options = presence if kind.is_present else None
            return Subscriber(server.port, stream, is_extended=kind.is_extended, options=options)

        async def used() -> dict[str, float]:
            cpu_s = await server.process.settled_cpu_s(settled_s)
            memory: Any = client.info("memory")
            return {
                "node, KiB": server.process.private_bytes() / 1024,
                "Redis, bytes": memory["used_memory"],
                "opening: node, CPU µs": 1e6 * cpu_s,
                "Redis, CPU µs": 1e6 * broker.cpu_s(),
            }

        for other in await _connect(subscriber, "before", _WARMING_UP, kind.sharing):
            other.cut()
        before = await used()
        opened = await _connect(subscriber, "room", count, kind.sharing)
        after = await used()
        for one in opened:
            one.cut()
    return {name: (after[name] - before[name]) / count for name in before}


async def _connect(
    make: Callable[[str, int], Subscriber], prefix: str, count: int, sharing: int
) -> list[Subscriber]:
    subscribers = [make(f"{prefix}-{number // sharing}", number) for number in range(count)]
    await connect_all(subscribers, at_once=_AT_ONCE)
    return subscribers
