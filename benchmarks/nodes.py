"""Two nodes over a Redis beside one: what the second core brings, and what Redis costs."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .load import Run, subscribed
from .peers import MissingError
from .processes import Cpu, Process
from .report import Section, Table, number
from .rounds import interleave, ratio
from .servers import Server, redis, tambur

_PUBLISHERS = 16
_WARM_UP = 100


class Measured(NamedTuple):
    """One run, and the processor time of the Redis in it."""

    run: Run
    redis: Cpu

    def cpu_us(self, used: Cpu) -> float:
        """Of a publish, in microseconds."""
        return 1e6 * used.total_s / float(self.run.found["published"])


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
    section = Section(
        "Two nodes over Redis",
        f"{_PUBLISHERS} publishers that wait for each answer, and one subscriber or 1,000. One node has one core. Two "
        "nodes are `--workers 2`: they share a port, the connections and both cores, and they share these with Redis and "
        "with the load, since there are no others; so where everybody is busy, the processor time of a publish "
        "tells more than the publishes a second. It holds the deliveries, too.",
    )
    seconds = 0.1 if quick else 1.5
    for subscribers in (1, 50) if quick else (1, 1000):

        def measure(name: str, subscribers: int = subscribers) -> Measured:
            with (
                _CLUSTERS[name]() as (server, broker),
                subscribed(server, subscribers, 2000 if quick else 20_000) as load,
            ):
                load.run("count", _WARM_UP, _PUBLISHERS)
                before = Cpu(0, 0) if broker is None else broker.cpu()
                run = load.run("wait", seconds, _PUBLISHERS)
                return Measured(run, before if broker is None else broker.cpu() - before)

        present = {name: functools.partial(measure, name) for name in _CLUSTERS}
        try:
            section.tables.append(_table(subscribers, interleave(present, 1 if quick else 5)))
        except MissingError as error:
            section.notes.append(f"Not measured: {error}")
            break
    return section


def _table(subscribers: int, measured: dict[str, list[Measured]]) -> Table:
    table = Table(
        [
            f"subscribers: {subscribers:,}",
            "publishes/s",
            f"times {_ALONE}",
            "p50 ms",
            "p99 ms",
            "nodes, CPU µs a publish",
            "Redis, CPU µs a publish",
            "load busy",
        ]
    )
    alone = [m.run.publishes_per_s for m in measured[_ALONE]]
    for name, found in measured.items():
        rates = [m.run.publishes_per_s for m in found]
        figures = [
            statistics.median(figure)
            for figure in (
                [float(m.run.found["p50_ms"]) for m in found],
                [float(m.run.found["p99_ms"]) for m in found],
                [m.cpu_us(m.run.server) for m in found],
                [m.cpu_us(m.redis) for m in found],
            )
        ]
        busy = statistics.median(m.run.load_busy for m in found)
        table.add(
            name,
            number(statistics.median(rates)),
            f"{ratio(rates, alone):.2f}",
            *[f"{ms:.1f}" for ms in figures[:2]],
            *[number(us) for us in figures[2:]],
            f"{100 * busy:.0f} %",
        )
    return table
