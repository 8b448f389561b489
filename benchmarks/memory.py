"""Memory of idle connections, each with one subscription."""

from __future__ import annotations

from .delivery import race
from .load import subscribed
from .report import Section, table
from .servers import NCHAN, STARTERS, Starter

_WARM_UP = 100


def memory(*, quick: bool) -> Section:
    """KiB a connection."""
    connections = 200 if quick else 5000

    def measure(start: Starter) -> float:
        with start() as server:
            with subscribed(server, _WARM_UP):
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
