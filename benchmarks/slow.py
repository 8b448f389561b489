"""One subscriber that never reads, beside a healthy one."""

from __future__ import annotations

from typing import NamedTuple

from tambur.server import Limits

from .delivery import race
from .load import Run, loaded
from .report import Section, Table, Target
from .servers import LIMIT, STARTERS, TAMBUR, Starter

MESSAGES = 1500
SIZE = 16 * 1024
MIB = 1024 * 1024


class _Growth(NamedTuple):
    run: Run
    grown_bytes: int
    most_bytes: int


def slow(*, quick: bool) -> Section:
    """Memory, and what the healthy one gets."""
    messages = 100 if quick else MESSAGES

    def grow(start: Starter, deaf: int) -> _Growth:
        with loaded(start, 2, messages + 3, size=SIZE, deaf=deaf) as load:
            process = load.server.process
            load.run("count", 1)
            before, most_before = process.private_bytes(), process.most_resident_bytes()
            run = load.run("count", messages, is_strict=False)
            return _Growth(run, process.private_bytes() - before, process.most_resident_bytes() - most_before)

    def measure(start: Starter) -> _Growth:
        with_deaf, without = grow(start, 1), grow(start, 0)
        return _Growth(
            with_deaf.run,
            with_deaf.grown_bytes - without.grown_bytes,
            with_deaf.most_bytes - without.most_bytes,
        )

    # The limit's sends block, so it would stand still: that is what it is.
    found, missing = race([name for name in STARTERS if name != LIMIT], measure, 1)
    table = Table(
        [
            f"{messages:,} messages of 16 KiB",
            "the healthy one got",
            "seconds",
            "longest wait of the publisher, ms",
            "memory, MiB more",
            "at its peak, MiB more",
        ]
    )
    for name, (outcome,) in found.items():
        load_found = outcome.run.found
        got, expected = load_found["deliveries"], messages
        table.add(
            name,
            "all" if got == expected else f"{got:,} of them",
            f"{load_found['seconds']:.1f}",
            f"{load_found['answer_max_ms']:.0f}",
            f"{outcome.grown_bytes / MIB:.1f}",
            f"{outcome.most_bytes / MIB:.1f}",
        )
    for name, error in missing.items():
        table.add_missing(name, error)
    (ours,) = found[TAMBUR]
    limit = Limits().max_unsent_bytes
    slowest_ms = float(ours.run.found["answer_max_ms"])
    return Section(
        "A subscriber that never reads",
        "Two subscribers, of which one stops reading once it is subscribed. A server can stop publishing for "
        "everybody, keep what is unsent without bounds, or part with the slow one. tambur parts with whoever "
        f"has more than `max_unsent_bytes` ({limit // 1024:,} KiB) unsent. What counts is how much more the server's "
        "memory grows than with two healthy subscribers; what a process does not give back to the system counts.",
        [table],
        [
            Target(
                "the healthy one gets all",
                f"{ours.run.found['deliveries']:,} of {messages:,}",
                ours.run.found["deliveries"] == messages,
            ),
            Target("publishing never stalls (100 ms)", f"at most {slowest_ms:.0f} ms", slowest_ms < 100),
            Target(
                f"memory grows by at most the limit ({limit / MIB:g} MiB)",
                f"{ours.grown_bytes / MIB:.1f} MiB",
                ours.grown_bytes <= limit,
            ),
        ],
    )
