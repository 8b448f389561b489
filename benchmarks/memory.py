"""Memory of idle connections, each with one subscription."""

from __future__ import annotations

import json
import signal
import statistics
from functools import partial

from .delivery import race
from .load import subscribed
from .processes import Process
from .report import Section, Table, Target
from .servers import STARTERS, TAMBUR, Starter, tambur

AIM_KIB = 6.0
_WARM_UP = 100


def memory(*, quick: bool) -> Section:
    """KiB a connection, and where ours go."""
    connections = 200 if quick else 5000

    def measure(start: Starter) -> float:
        with start() as server:
            with subscribed(server, _WARM_UP):
                pass
            before = server.process.private_bytes()
            with subscribed(server, connections):
                return (server.process.private_bytes() - before) / 1024 / connections

    found, missing = race(list(STARTERS), measure, 1 if quick else 3)
    table = Table([f"{connections:,} idle connections", "KiB each"])
    for name, sizes in found.items():
        table.add(name, f"{statistics.median(sizes):.1f}")
    for name, error in missing.items():
        table.add_missing(name, error)
    ours = statistics.median(found[TAMBUR])
    return Section(
        "Memory of idle connections",
        "Private memory of the server's process with the connections open, each subscribed to one stream, less that "
        "of before. The kernel's own memory for a socket, some KiB whoever holds it, is not in it.",
        [table, _where(connections)],
        [Target(f"at most {AIM_KIB:g} KiB a connection", f"{ours:.1f} KiB", ours <= AIM_KIB)],
    )


def _where(connections: int) -> Table:
    """Which file's objects a connection of ours keeps, as tracemalloc sees it."""
    with partial(tambur, is_traced=True)() as server:
        with subscribed(server, _WARM_UP):
            pass
        before = _allocated(server.process)
        with subscribed(server, connections):
            after = _allocated(server.process)
    grown = {file: (size - before.get(file, 0)) / connections for file, size in after.items()}
    table = Table(["allocated by tambur, for a connection", "bytes"])
    largest = sorted(grown, key=lambda file: grown[file], reverse=True)[:12]
    for file in largest:
        table.add(f"`{file}`", f"{grown[file]:,.0f}")
    table.add("others", f"{sum(grown.values()) - sum(grown[file] for file in largest):,.0f}")
    table.add("all", f"{sum(grown.values()):,.0f}")
    return table


def _allocated(process: Process) -> dict[str, int]:
    process.signal(signal.SIGUSR1)
    sizes: dict[str, int] = json.loads(process.read_line())
    return sizes
