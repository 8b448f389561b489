"""Delivery: how fast messages reach many subscribers, how soon, and what a connection costs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from .load import Run, loaded, subscribed
from .peers import MissingError
from .report import Section, interleave, table
from .servers import LIMIT, NCHAN, STARTERS, TAMBUR, UNCOALESCED, UVLOOP, WS, Starter

R = TypeVar("R")

SIZES = (100, 1000, 5000)
_REQUESTS = {100: 8000, 1000: 4000, 5000: 1500}  # more than a second's worth
_WARM_UP = 3
BURST = 100
PACE_PER_S = 20


def race(
    names: Sequence[str], measure: Callable[[Starter], R], rounds: int
) -> tuple[dict[str, list[R]], dict[str, MissingError]]:
    """Measure servers in turns; each is started again every time."""
    missing: dict[str, MissingError] = {}
    for name in names:
        try:
            with STARTERS[name]():
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
        name: partial(measure_again_if_it_fails, STARTERS[name]) for name in names if name not in missing
    }
    return interleave(present, rounds), missing


def _p50(run: Run) -> float:
    return float(run.found["p50_ms"])


def _p99(run: Run) -> float:
    return float(run.found["p99_ms"])


def fanout(*, quick: bool) -> Section:
    """One publisher that waits for each answer."""
    tables = []
    for size in SIZES[:1] if quick else SIZES:

        def measure(start: Starter, size: int = size) -> Run:
            with loaded(start, size, _REQUESTS[size]) as load:
                load.run("count", _WARM_UP)
                return load.run("wait", 0.1 if quick else 1.0)

        runs, missing = race(list(STARTERS), measure, 1 if quick else 7)
        figures: dict[str, Callable[[Run], float]] = {
            "deliveries/s": lambda run: run.deliveries_per_s,
            "CPU µs a delivery": lambda run: run.cpu_us,
            "server busy, %": lambda run: 100 * run.server_s / run.found["seconds"],
            "load busy, %": lambda run: 100 * run.load_busy,
        }
        tables.append(table(f"{size:,} subscribers", runs, figures, against=LIMIT, missing=missing))
    return Section(
        "One message to many",
        "One publisher sends a message of 128 bytes to all WebSocket subscribers, waits for the answer and sends "
        "the next one, for a second. Server and load have a core each. A run counts only if every message reached "
        "every subscriber. The first row needs one `send` for each message. Tambur verifies its signed requests.",
        tables,
    )


def burst(*, quick: bool) -> Section:
    """Many publishers at the same moment."""
    subscribers = 100 if quick else 1000

    def measure(start: Starter) -> Run:
        with loaded(start, subscribers, 10 * BURST) as load:
            load.run("burst", 1, BURST)
            return load.run("burst", 1 if quick else 5, BURST)

    runs, missing = race(list(STARTERS), measure, 1 if quick else 5)
    figures: dict[str, Callable[[Run], float]] = {
        "deliveries/s": lambda run: run.deliveries_per_s,
        "p50 ms": _p50,
        "p99 ms": _p99,
        "CPU µs a delivery": lambda run: run.cpu_us,
    }
    return Section(
        "A hundred messages at once",
        f"{BURST} publishers, each with its own connection, send one message at the same moment. The next hundred "
        "follow when all are delivered. A delivery lasts from the publisher's `send` to the subscriber's `recv`.",
        [table(f"{subscribers:,} subscribers", runs, figures, against=NCHAN, missing=missing)],
    )


def latency(*, quick: bool) -> Section:
    """How soon a message arrives, at an even pace and with a publisher that waits."""
    subscribers = 100 if quick else 1000

    def measure(start: Starter) -> tuple[Run, Run]:
        with loaded(start, subscribers, _REQUESTS[1000]) as load:
            load.run("count", _WARM_UP)
            return load.run("pace", 0.2 if quick else 3, PACE_PER_S), load.run("wait", 0.1 if quick else 1.0)

    names = [LIMIT, TAMBUR, UNCOALESCED, UVLOOP, NCHAN, WS]
    runs, missing = race(names, measure, 1 if quick else 7)
    figures: dict[str, Callable[[tuple[Run, Run]], float]] = {
        f"{PACE_PER_S}/s: p50": lambda pair: _p50(pair[0]),
        "p99": lambda pair: _p99(pair[0]),
        "a publisher that waits: p50": lambda pair: _p50(pair[1]),
        "then p99": lambda pair: _p99(pair[1]),
        "then messages/s": lambda pair: pair[1].publishes_per_s,
    }
    return Section(
        "How soon a message arrives",
        "From the publisher's `send` to the subscriber's `recv`, over all subscribers.",
        [table(f"ms to {subscribers:,} subscribers", runs, figures, against=NCHAN, missing=missing)],
    )


# nchan numbers a channel's messages of one second with 16 bits, and loses those beyond 32,767. It accepts up to
# 100,000 publishes a second, and both runs may fall into the same second.
_SIGNED_S = 0.2


def signed(*, quick: bool) -> Section:
    """Publishing to one subscriber, so that the REST call is nearly all of the work."""
    tables = []
    for publishers in (1, 4):

        def measure(start: Starter, publishers: int = publishers) -> Run:
            with loaded(start, 1, 2000 if quick else 20_000) as load:
                load.run("count", 20)
                return load.run("wait", 0.1 if quick else _SIGNED_S, publishers)

        runs, missing = race([TAMBUR, UVLOOP, NCHAN], measure, 1 if quick else 15)
        figures: dict[str, Callable[[Run], float]] = {
            "publishes/s": lambda run: run.publishes_per_s,
            "CPU µs each": lambda run: 1e6 * run.server_s / run.found["published"],
        }
        tables.append(table(f"publishers: {publishers}", runs, figures, against=NCHAN, missing=missing))
    return Section(
        "Signed publishes",
        "Publishers that wait for each answer, and one subscriber. Tambur verifies each signature, claims its nonce "
        "and checks its limits. nchan checks nothing.",
        tables,
    )


def memory(*, quick: bool) -> Section:
    """KiB a connection."""
    connections = 200 if quick else 5000

    def measure(start: Starter) -> float:
        with start() as server:
            with subscribed(server, 100):
                pass
            before = server.process.private_bytes()
            with subscribed(server, connections):
                return (server.process.private_bytes() - before) / 1024 / connections

    found, missing = race(list(STARTERS), measure, 1 if quick else 3)
    figures = {"KiB each": lambda kib: kib}
    return Section(
        "Memory of idle connections",
        "How much the private memory of the server's process grows when the connections open. Each connection has "
        "one subscription. The kernel's memory for a socket is not included.",
        [table(f"{connections:,} idle connections", found, figures, against=NCHAN, missing=missing)],
    )
