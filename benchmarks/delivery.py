"""Delivery: how fast messages are accepted and reach many subscribers, how soon, and what a connection costs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from .load import Run, loaded, subscribed
from .peers import MissingError
from .report import Section, interleave, table
from .servers import ACCEPTING, LIMIT, NCHAN, STARTERS, TAMBUR, Starter, nchan

R = TypeVar("R")

SIZES = (100, 1000, 5000)
_REQUESTS = {100: 8000, 1000: 4000, 5000: 1500}  # more than a second's worth
BURST = 100
PACE_PER_S = 20


def race(
    starters: Mapping[str, Starter], measure: Callable[[Starter], R], rounds: int
) -> tuple[dict[str, list[R]], dict[str, MissingError]]:
    """Measure servers in turns; each is started again every time."""
    missing: dict[str, MissingError] = {}
    for name, start in starters.items():
        try:
            with start():
                pass
        except MissingError as error:
            missing[name] = error

    def measure_again_if_it_fails(start: Starter) -> R:
        try:
            return measure(start)
        except RuntimeError as error:
            print(f"repeated, because {error}", file=sys.stderr)
            return measure(start)

    present = {
        name: partial(measure_again_if_it_fails, start)
        for name, start in starters.items()
        if name not in missing
    }
    return interleave(present, rounds), missing


def fanout(*, quick: bool) -> Section:
    """One publisher at an even pace, then one that waits for each answer."""
    tables = []
    for size in SIZES[:1] if quick else SIZES:

        def measure(start: Starter, size: int = size) -> tuple[Run, Run]:
            with loaded(start, size, _REQUESTS[size]) as load:
                load.run("count", 3)
                paced = load.run("pace", 0.2 if quick else 1.5, PACE_PER_S)
                return load.run("wait", 0.1 if quick else 1.0), paced

        runs, missing = race(STARTERS, measure, 1 if quick else 7)
        figures: dict[str, Callable[[tuple[Run, Run]], float]] = {
            "deliveries/s": lambda pair: pair[0].deliveries_per_s,
            "CPU µs a delivery": lambda pair: pair[0].cpu_us,
            "p50 ms": lambda pair: pair[0].p50_ms,
            "p99 ms": lambda pair: pair[0].p99_ms,
            f"{PACE_PER_S}/s: p50 ms": lambda pair: pair[1].p50_ms,
            "then p99 ms": lambda pair: pair[1].p99_ms,
        }
        tables.append(table(f"{size:,} subscribers", runs, figures, against=LIMIT, missing=missing))
    return Section(
        "One message to many",
        "One publisher sends a message of 128 bytes to all WebSocket subscribers, waits for the answer and sends "
        "the next one, for a second. Server and load have a core each. A run counts only if every message reached "
        "every subscriber. The first row needs one `send` for each message. Tambur verifies its signed requests. "
        "A delivery lasts from the publisher's `send` to the subscriber's `recv`. The last columns are of another "
        f"run, with {PACE_PER_S} messages a second.",
        tables,
    )


def burst(*, quick: bool) -> Section:
    """Many publishers at the same moment."""
    subscribers = 100 if quick else 1000

    def measure(start: Starter) -> Run:
        with loaded(start, subscribers, 10 * BURST) as load:
            load.run("burst", 1, BURST)
            return load.run("burst", 1 if quick else 5, BURST)

    runs, missing = race(STARTERS, measure, 1 if quick else 5)
    figures: dict[str, Callable[[Run], float]] = {
        "deliveries/s": lambda run: run.deliveries_per_s,
        "p50 ms": lambda run: run.p50_ms,
        "p99 ms": lambda run: run.p99_ms,
        "CPU µs a delivery": lambda run: run.cpu_us,
    }
    return Section(
        "A hundred messages at once",
        f"{BURST} publishers, each with its own connection, send one message at the same moment. The next hundred "
        "follow when all are delivered. A delivery lasts from the publisher's `send` to the subscriber's `recv`.",
        [table(f"{subscribers:,} subscribers", runs, figures, against=NCHAN, missing=missing)],
    )


# nchan numbers a channel's messages of one second with 16 bits, and loses those beyond 32,767. It accepts up to
# 100,000 publishes a second, and both runs may fall into the same second.
_NCHAN_S = 0.2


def signed(*, quick: bool) -> Section:
    """Publishing, by what takes the publishes: with and without history, Redis and a second node."""
    tables = []
    for publishers, subscribers in ((1, 1), (4, 1), (16, 1), (16, 1000))[:: 2 if quick else 1]:

        def measure(start: Starter, publishers: int = publishers, subscribers: int = subscribers) -> Run:
            with loaded(start, subscribers, 2000 if quick else 20_000) as load:
                load.run("count", 100, publishers)
                seconds = 0.1 if quick else _NCHAN_S if start is nchan else 1.5
                return load.run("wait", seconds, publishers)

        runs, missing = race(ACCEPTING, measure, 1 if quick else 5)
        figures: dict[str, Callable[[Run], float]] = {
            "publishes/s": lambda run: run.publishes_per_s,
            "server, CPU µs each": lambda run: run.us_a_publish(run.server_s),
            "Redis, CPU µs each": lambda run: run.us_a_publish(run.redis_s),
            "p99 ms": lambda run: run.p99_ms,
        }
        title = f"publishers: {publishers}, subscribers: {subscribers:,}"
        tables.append(table(title, runs, figures, against=TAMBUR, missing=missing, ratios=2))
    return Section(
        "Signed publishes",
        "Publishers that wait for each answer. Tambur verifies each signature, claims its nonce and checks its limits. "
        "nchan checks nothing. One server has one core. Two nodes are `--workers 2`: they share a port, the connections "
        "and both cores with Redis and the load. On two cores the processor time of a publish therefore says more than "
        "the rate. It includes the deliveries.",
        tables,
    )


def memory(*, quick: bool) -> Section:
    """KiB a connection."""
    connections = 200 if quick else 5000
    title = f"{connections:,} idle connections"
    found, missing = race(STARTERS, partial(kib_each, connections), 1 if quick else 3)
    return Section(
        "Memory of idle connections",
        "How much the private memory of the server's process grows when the connections open. Each connection has "
        "one subscription. The kernel's memory for a socket is not included.",
        [table(title, found, {"KiB each": float}, against=NCHAN, missing=missing)],
    )


def kib_each(connections: int, start: Starter) -> float:
    """The private memory of an idle connection, in KiB."""
    with start() as server:
        with subscribed(server, 100):
            pass
        before = server.process.private_bytes()
        with subscribed(server, connections):
            return (server.process.private_bytes() - before) / 1024 / connections
