"""Runs in turns, their results as Markdown, and the machine of the run."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_PACKAGES = ("requests", "urllib3", "uvicorn", "starlette", "httptools", "uvloop", "redis")


class Section(NamedTuple):
    """One part.

    Attributes:
        text: how it is measured.
        tables: in Markdown.
    """

    title: str
    text: str
    tables: Sequence[str] = ()

    def markdown(self) -> str:
        return "\n\n".join([f"## {self.title}", self.text, *self.tables]) + "\n"


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
    """The median of each round's ratio: what two contenders of one round share cancels out. NaN without one."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b]
    return statistics.median(ratios) if ratios else math.nan


def table(
    title: str,
    results: Mapping[str, Sequence[T]],
    figures: Mapping[str, Callable[[T], float]],
    *,
    against: str,
    missing: Mapping[str, Exception] = MappingProxyType({}),
    ratios: int = 1,
) -> str:
    """One row a contender: the median of each figure, and ratios to a reference.

    Parameters:
        results: of each contender, one a round.
        figures: what the columns show.
        against: the contender that is the reference.
        missing: why a contender was not measured.
        ratios: how many figures, from the first on, have a column with their ratio to the reference.
    """
    header = [title]
    rows = {name: [name] for name in results}
    for place, (figure_name, figure) in enumerate(figures.items()):
        header += [figure_name, f"times {against}"][: 2 if place < ratios else 1]
        for name, found in results.items():
            values = [*map(figure, found)]
            rows[name].append(number(statistics.median(values)))
            if place < ratios:
                reference = [*map(figure, results.get(against, ()))]
                rows[name].append(f"{ratio(values, reference):.2f}" if reference else "")
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows.values()]
    lines += [[name, f"missing: {error}", *[""] * (len(header) - 2)] for name, error in missing.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """With thousands separated, and with at least three digits where it is small."""
    if value >= 1000:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """The date, the processor, the load average and the versions."""
    versions = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    packages = [f"{name} {versions[name]}" for name in _PACKAGES if name in versions]
    return (
        f"{dt.datetime.now(dt.timezone.utc).date()}: {len(os.sched_getaffinity(0))} cores of {_cpu()}, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {', '.join(packages)}. "
        f"The load average was {os.getloadavg()[0]:.1f} when the run began. 0 means that no other program used the cores."
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
