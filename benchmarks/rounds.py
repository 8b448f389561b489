"""Runs in turns, and what is made of their figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def interleave(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every contender once a round, so that a machine that changes its pace does so for all.

    Each round begins with another one, so that none always follows the same.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            results[name].append(contenders[name]())
    return results


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of each round's ratio: what two contenders of one round share cancels out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
