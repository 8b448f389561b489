"""Two nodes over Redis beside one node: the gain from a second core, and the cost of Redis."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .load import Run, subscribed
from .processes import Process
from .report import Section, interleave, table
from .servers import Server, redis, tambur

_PUBLISHERS = 16
_WARM_UP = 100


class Measured(NamedTuple):
    """One run, and the processor time of its Redis in seconds."""

    run: Run
    redis_s: float

    def cpu_us(self, used_s: float) -> float:
        """Of a publish, in microseconds."""
        return 1e6 * used_s / float(self.run.found["published"])


@contextlib.contextmanager
def _alone() -> Iterator[tuple[Server, Process | None]]:
    with tambur() as node:
        yield node, None


@contextlib.contextmanager
def _over_redis(nodes: int | None) -> Iterator[tuple[Server, Process | None]]:
    with redis() as (process, port), tambur(broker=f"redis://127.0.0.1:{port}", workers=nodes) as server:
        yield server, process


_ALONE = "one node"
_CLUSTERS: dict[str, Callable[[], contextlib.AbstractContextManager[tuple[Server, Process | None]]]] = {
    _ALONE: _alone,
    "one node over Redis": functools.partial(_over_redis, None),
    "two nodes over Redis": functools.partial(_over_redis, 2),
}


def nodes(*, quick: bool) -> Section:
    """Signed publishes to one subscriber, and to many."""
    tables = []
    for subscribers in (1, 50) if quick else (1, 1000):

        def measure(name: str, subscribers: int = subscribers) -> Measured:
            with (
                _CLUSTERS[name]() as (server, broker),
                subscribed(server, subscribers, 2000 if quick else 20_000) as load,
            ):
                load.run("count", _WARM_UP, _PUBLISHERS)
                before = 0.0 if broker is None else broker.cpu_s()
                run = load.run("wait", 0.1 if quick else 1.5, _PUBLISHERS)
                return Measured(run, before if broker is None else broker.cpu_s() - before)

        measured = interleave(
            {name: functools.partial(measure, name) for name in _CLUSTERS}, 1 if quick else 5
        )
        figures: dict[str, Callable[[Measured], float]] = {
            "publishes/s": lambda m: m.run.publishes_per_s,
            "p50 ms": lambda m: float(m.run.found["p50_ms"]),
            "p99 ms": lambda m: float(m.run.found["p99_ms"]),
            "nodes, CPU µs a publish": lambda m: m.cpu_us(m.run.server_s),
            "Redis, CPU µs a publish": lambda m: m.cpu_us(m.redis_s),
            "load busy, %": lambda m: 100 * m.run.load_busy,
        }
        tables.append(table(f"subscribers: {subscribers:,}", measured, figures, against=_ALONE, missing={}))
    return Section(
        "Two nodes over Redis",
        f"{_PUBLISHERS} publishers that wait for each answer. One node has one core. Two nodes are `--workers 2`: they "
        "share a port, the connections and both cores with Redis and the load. On two cores the processor time of "
        "a publish therefore says more than the rate. It includes the deliveries.",
        tables,
    )
