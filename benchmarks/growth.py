"""How delivery grows with the number of subscribers."""

from __future__ import annotations

import statistics

from .delivery import race
from .load import Run, loaded
from .report import Curves, Section, Table, Target, number
from .servers import LIMIT, NCHAN, TAMBUR, UNCOALESCED, Starter

SUBSCRIBERS = (10, 30, 100, 300, 1000, 3000, 10_000)


def growth(*, quick: bool) -> Section:
    """Deliveries a second, and processor time of each."""
    names = [LIMIT, TAMBUR, UNCOALESCED, NCHAN]
    counts = SUBSCRIBERS[:3] if quick else SUBSCRIBERS
    rates: dict[str, list[tuple[float, float]]] = {}
    costs: dict[str, list[tuple[float, float]]] = {}
    for count in counts:

        def measure(start: Starter, count: int = count) -> Run:
            with loaded(start, count, max(500, min(20_000, 2_000_000 // count))) as load:
                load.run("count", 3)
                return load.run("wait", 0.1 if quick else 0.7)

        runs, missing = race(names, measure, 1 if quick else 3)
        for name, found in runs.items():
            rates.setdefault(name, []).append((count, statistics.median(r.deliveries_per_s for r in found)))
            costs.setdefault(name, []).append((count, statistics.median(r.cpu_us for r in found)))
    table = Table(["subscribers", *[c for name in rates for c in (f"{name}: deliveries/s", "CPU µs each")]])
    for i, count in enumerate(counts):
        cells = [cell for name in rates for cell in (number(rates[name][i][1]), f"{costs[name][i][1]:.2f}")]
        table.add(f"{count:,}", *cells)
    targets = []
    for name in (TAMBUR, UNCOALESCED):
        # Below a hundred subscribers, most of the time goes into receiving the publish.
        of = [cost for count, cost in costs[name] if count >= 100]
        grown = of[-1] / min(of)
        targets.append(
            Target(
                f"{name}: processor time of a delivery is flat from 100 to {counts[-1]:,} subscribers (within 50 %)",
                f"{grown:.2f} times the least",
                grown <= 1.5,
            )
        )
    return Section(
        "Growth",
        "One publisher who waits for each answer, and 10 to 10,000 subscribers, as in the first table. What a "
        "publish costs by itself is divided among its deliveries.",
        [table],
        targets,
        notes=[f"Not here: {name}: {error}" for name, error in missing.items()],
        curves=[Curves("deliveries a second", rates), Curves("processor time of a delivery, µs", costs)],
    )
