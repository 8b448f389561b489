"""The page of a whole run: its sections, the machine and the versions."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from .peers import versions
from .report import Curves, Section

_PACKAGES = ("requests", "urllib3", "uvicorn", "starlette", "httptools", "uvloop")

_INTRODUCTION = """\
# Performance

This page is written by `{command}`. Everything on it was measured in one run on one machine, by turns:
each round every contender had its turn once, and what stands here are medians of the rounds, and of the
rounds' ratios. Clocks of shared machines drift by a third, so trust the ratios and the processor time more
than the figures a second. The first row of a table is what the machine allows.

{machine}
"""


def write(path: Path, sections: list[Section], load_before: float) -> None:
    """Write the page.

    Parameters:
        load_before: the machine's load average when the run began.
    """
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    blocks = [_INTRODUCTION.format(command=command, machine=machine(load_before, versions()))]
    for section in sections:
        blocks.append(section.markdown())
        if section.curves:
            blocks.append(_plot(path.with_suffix(".svg"), section.curves))
    path.write_text("\n".join(blocks), "utf-8")


def _plot(path: Path, curves: list[Curves]) -> str:
    """Draw curves side by side, if matplotlib is here; returns what the page says in that place."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - the rest of the page does without it
    except ImportError:
        return "No plot: `pip install matplotlib` into the Python that runs the benchmarks.\n"
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, plot in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        for name, points in plot.points.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name.replace("`", ""))
        axes.set(xscale="log", yscale="log", xlabel="subscribers", title=plot.title)
        axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    return f"![{' and '.join(plot.title for plot in curves)}]({path.name})\n"


def machine(load_before: float, others: Sequence[str]) -> str:
    """The date, the processor and the versions, also of what else is measured."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES if _has(name)]
    date = dt.datetime.now(dt.timezone.utc).date()
    return (
        f"{date.isoformat()}: {len(os.sched_getaffinity(0))} cores of {_cpu()}, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {', '.join([*packages, *others])}. "
        f"Its load average was {load_before:.1f} when the run began: at 0, nobody else used the cores."
    )


def _has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
