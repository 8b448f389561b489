"""The page of a whole run: its sections, the machine and the versions."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

from .report import Section

_PACKAGES = ("requests", "urllib3", "uvicorn", "starlette", "httptools", "websockets", "uvloop")

_INTRODUCTION = """\
# Performance

This page is written by `{command}`. Everything on it was measured in one run on one machine, by turns:
each round every contender had its turn once, and what stands here are medians of the rounds, and of the
rounds' ratios. Clocks of shared machines drift by a third, so trust the ratios and the processor time more
than the figures a second. The first row of a table is what the machine allows.

{machine}
"""


def write(path: Path, sections: list[Section]) -> None:
    """Write the page."""
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    text = _INTRODUCTION.format(command=command, machine=_machine())
    path.write_text("\n".join([text, *(section.markdown() for section in sections)]), "utf-8")


def _machine() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES if _has(name)]
    date = dt.datetime.now(dt.timezone.utc).date()
    return (
        f"{date.isoformat()}: {len(os.sched_getaffinity(0))} cores of {_cpu()}, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {', '.join(versions)}."
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
