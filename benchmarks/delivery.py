"""Delivery: how fast messages reach many subscribers, and how soon."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from .load import Run, loaded
from .peers import MissingError
from .report import Section, Table, Target, number
from .rounds import interleave, ratio, spread
from .servers import (
    LIMIT,
    NATS,
    NCHAN,
    STARTERS,
    TAMBUR,
    UNCOALESCED,
    UVLOOP,
    UVLOOP_UNCOALESCED,
    WS,
    Starter,
)

R = TypeVar("R")


def race(
    names: Sequence[str], measure: Callable[[Starter], R], rounds: int
) -> tuple[dict[str, list[R]], dict[str, MissingError]]:
    """Measure servers in turns, each started afresh every time.

    Returns:
        The results of each, and which are missing.
    """
    missing: dict[str, MissingError] = {}
    for name in names:
        try:
            with STARTERS[name]():
                pass
        except MissingError as error:
            missing[name] = error

    def measure_at_last(start: Starter) -> R:
        try:
            return measure(start)
        except RuntimeError as error:
            print(f"once more, since {error}", file=sys.stderr)
            return measure(start)

    present = {name: partial(measure_at_last, STARTERS[name]) for name in names if name not in missing}
    return interleave(present, rounds), missing


def _median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(figure(run) for run in runs)


def _ms(runs: Sequence[Run], figure: str) -> str:
    return f"{_median(runs, lambda run: float(run.found[figure])):.1f}"


def _against(
    runs: dict[str, list[Run]], ours: str, theirs: str, figure: Callable[[Run], float]
) -> float | None:
    if ours not in runs or theirs not in runs:
        return None
    return ratio([figure(run) for run in runs[ours]], [figure(run) for run in runs[theirs]])


def _rate(run: Run) -> float:
    return run.deliveries_per_s


SIZES = (100, 1000, 5000)
_REQUESTS = {100: 8000, 1000: 4000, 5000: 1500}  # more than a second's worth
_WARM_UP = 3


def fanout(*, quick: bool) -> Section:
    """One publisher who waits for each answer."""
    section = Section(
        "One message to many",
        "A message of 128 bytes goes to 100, 1,000 and 5,000 WebSocket subscribers; the publisher sends the "
        "next one when the last is answered, for a second. The server has one core, the load (a C program: "
        "subscribers and publisher) the other. Every server is started afresh for each run. Every message must "
        "have reached every subscriber, or the run is void. tambur's requests are signed, and verified by it; "
        "the others take the bare message. The last two columns show whether the load would have been the "
        "bottleneck: the part of the time that its core was busy, beside the server's. The first row is what "
        "one `send` a message costs: more is only possible with fewer system calls than messages, which is "
        "what tambur's `coalesce_window_ms` (2 by default) is for.",
    )
    names = list(STARTERS)
    for size in SIZES[:1] if quick else SIZES:

        def measure(start: Starter, size: int = size) -> Run:
            with loaded(start, size, _REQUESTS[size]) as load:
                load.run("count", _WARM_UP)
                return load.run("wait", 0.1 if quick else 1.0)

        runs, missing = race(names, measure, 1 if quick else 7)
        section.tables.append(_fanout_table(size, runs, missing))
        section.targets += _fanout_targets(size, runs)
    return section


def _fanout_table(size: int, runs: dict[str, list[Run]], missing: dict[str, MissingError]) -> Table:
    table = Table(
        [
            f"{size:,} subscribers",
            "deliveries/s",
            "times the limit",
            "spread",
            "user µs a delivery",
            "CPU µs a delivery",
            "server busy",
            "load busy",
        ]
    )
    for name, found in runs.items():
        against = _against(runs, name, LIMIT, _rate)
        table.add(
            name,
            number(_median(found, _rate)),
            "" if against is None else f"{against:.2f}",
            f"{100 * spread([_rate(run) for run in found]):.0f} %",
            f"{_median(found, lambda run: run.user_us):.2f}",
            f"{_median(found, lambda run: run.cpu_us):.2f}",
            f"{100 * _median(found, lambda run: run.server_busy):.0f} %",
            f"{100 * _median(found, lambda run: run.load_busy):.0f} %",
        )
    for name, error in missing.items():
        table.add_missing(name, error)
    return table


def _fanout_targets(size: int, runs: dict[str, list[Run]]) -> list[Target]:
    targets = []
    if size > SIZES[0]:
        for other, aim in ((NCHAN, "nchan"), (LIMIT, "the limit of one `send` a message")):
            against = _against(runs, TAMBUR, other, _rate)
            targets.append(Target.at_least(f"{size:,}: at least 5 times {aim}", against, 5.0))
    for other, aim, least in (
        (LIMIT, "at least 0.75 of the limit", 0.75),
        (NCHAN, "ahead of nchan", 1.0),
        (WS, "ahead of node `ws`", 1.0),
    ):
        for ours, on in ((UNCOALESCED, ""), (UVLOOP_UNCOALESCED, ", on uvloop")):
            against = _against(runs, ours, other, _rate)
            targets.append(Target.at_least(f"{size:,}, nothing coalesced{on}: {aim}", against, least))
    user_us = _median(runs[UNCOALESCED], lambda run: run.user_us)
    targets.append(
        Target(
            f"{size:,}, nothing coalesced: at most 1.5 µs of user time a delivery",
            f"{user_us:.2f} µs",
            user_us <= 1.5,
        )
    )
    return targets


BURST = 100


def burst(*, quick: bool) -> Section:
    """Many publishers at the same moment."""
    subscribers = 100 if quick else 1000

    def measure(start: Starter) -> Run:
        with loaded(start, subscribers, 10 * BURST) as load:
            load.run("burst", 1, BURST)
            return load.run("burst", 1 if quick else 5, BURST)

    runs, missing = race(list(STARTERS), measure, 1 if quick else 5)
    table = Table(
        [
            f"{subscribers:,} subscribers",
            "deliveries/s",
            "times nchan",
            "p50 ms",
            "p99 ms",
            "CPU µs a delivery",
        ]
    )
    for name, found in runs.items():
        against = _against(runs, name, NCHAN, _rate)
        table.add(
            name,
            number(_median(found, _rate)),
            "" if against is None else f"{against:.1f}",
            _ms(found, "p50_ms"),
            _ms(found, "p99_ms"),
            f"{_median(found, lambda run: run.cpu_us):.2f}",
        )
    for name, error in missing.items():
        table.add_missing(name, error)
    targets = []
    for other, least in ((NCHAN, 10.0), (NATS, 4.0)):
        targets.append(
            Target.at_least(f"at least {least:g} times {other}", _against(runs, TAMBUR, other, _rate), least)
        )
        if other in runs:
            ours, theirs = (
                _median(runs[name], lambda run: float(run.found["p99_ms"])) for name in (TAMBUR, other)
            )
            targets.append(
                Target(f"p99 below that of {other}", f"{ours:.1f} against {theirs:.1f} ms", ours < theirs)
            )
    return Section(
        "A hundred messages at once",
        f"{BURST} publishers, each with a connection of its own, send one message at the same moment; the next "
        "hundred come when all is delivered. The time of a delivery is from its publisher's `send` to its "
        "subscriber's `recv`.",
        [table],
        targets,
    )


PACE_PER_S = 20


def latency(*, quick: bool) -> Section:
    """How soon a message is there, at a leisurely pace and with a publisher who waits."""
    subscribers = 100 if quick else 1000
    names = [LIMIT, TAMBUR, UNCOALESCED, UVLOOP, UVLOOP_UNCOALESCED, NCHAN, WS]

    def measure(start: Starter) -> tuple[Run, Run]:
        with loaded(start, subscribers, _REQUESTS[1000]) as load:
            load.run("count", _WARM_UP)
            return load.run("pace", 0.2 if quick else 3, PACE_PER_S), load.run("wait", 0.1 if quick else 1.0)

    runs, missing = race(names, measure, 1 if quick else 7)
    paced = {name: [pair[0] for pair in found] for name, found in runs.items()}
    waiting = {name: [pair[1] for pair in found] for name, found in runs.items()}
    table = Table(
        [
            f"ms to {subscribers:,} subscribers",
            f"{PACE_PER_S}/s: p50",
            "p99",
            "a publisher who waits: p50",
            "p99",
            "messages/s then",
        ]
    )
    for name in runs:
        table.add(
            name,
            _ms(paced[name], "p50_ms"),
            _ms(paced[name], "p99_ms"),
            _ms(waiting[name], "p50_ms"),
            _ms(waiting[name], "p99_ms"),
            number(_median(waiting[name], lambda run: run.publishes_per_s)),
        )
    for name, error in missing.items():
        table.add_missing(name, error)

    def p(figure: str, of: dict[str, list[Run]], name: str) -> float:
        return _median(of[name], lambda run: float(run.found[figure]))

    targets = []
    for figure in ("p50", "p99"):
        if NCHAN in runs:
            ours, theirs = p(f"{figure}_ms", paced, TAMBUR), p(f"{figure}_ms", paced, NCHAN)
            against = f"{ours:.1f} against {theirs:.1f} ms"
            # Two runs of the same server differ by as much.
            targets.append(
                Target(f"paced, {figure} no worse than nchan's, within 10 %", against, ours <= 1.1 * theirs)
            )
    coalesced, alone = p("p50_ms", waiting, TAMBUR), p("p50_ms", waiting, UNCOALESCED)
    targets.append(
        Target(
            "a publisher who waits: coalescing adds at most its window (2 ms) to p50",
            f"{coalesced - alone:+.1f} ms",
            coalesced - alone <= 2.0,
        )
    )
    return Section(
        "How soon a message is there",
        "From the publisher's `send` to the subscriber's `recv`, over all subscribers: at an even pace, and with "
        "a publisher who sends the next message when the last is answered.",
        [table],
        targets,
    )


# nchan numbers a channel's messages of one second with 16 bits, and loses those beyond 32,767: it takes up to
# 100,000 publishes a second (of one publisher a seventh of that), and both runs may fall into the same second.
_SIGNED_S = 0.2


def signed(*, quick: bool) -> Section:
    """Publishing to one subscriber, where the REST call is all there is."""
    names = [TAMBUR, UVLOOP, NCHAN]
    counts = (1, 4)

    def measure(start: Starter) -> list[Run]:
        with loaded(start, 1, 2000 if quick else 40_000) as load:
            load.run("count", 20)
            return [load.run("wait", 0.1 if quick else _SIGNED_S, publishers) for publishers in counts]

    runs, missing = race(names, measure, 1 if quick else 15)
    table = Table(["one subscriber", *[f"publishes/s, {n} at a time" for n in counts], "CPU µs each"])
    rates = {
        name: [[several[i].publishes_per_s for several in found] for i in range(len(counts))]
        for name, found in runs.items()
    }
    for name, found in runs.items():
        cpu_us = statistics.median(1e6 * r[-1].server.total_s / r[-1].found["published"] for r in found)
        table.add(name, *[number(statistics.median(rate)) for rate in rates[name]], number(cpu_us))
    for name, error in missing.items():
        table.add_missing(name, error)
    targets = []
    for name in (TAMBUR, UVLOOP):
        for i, publishers in enumerate(counts):
            against = ratio(rates[name][i], rates[NCHAN][i]) if NCHAN in rates else None
            aim = f"{name}, {publishers} at a time: at least 0.5 of nchan"
            targets.append(Target.at_least(aim, against, 0.5))
    return Section(
        "Signed publishes",
        "Publishers that wait for each answer, and a single subscriber. tambur verifies each signature, claims "
        "its nonce and checks its limits; nchan takes what comes. With an application that answers 204 to everything, "
        "the same server takes about two fifths of tambur's processor time, most of it the kernel's and uvicorn's; "
        "the rest is verifying and delivering.",
        [table],
        targets,
    )
