"""Processes that are measured: started on a core of their own, and ended without fail."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from .peers import ROOT, program

SERVER_CORE = 0
LOAD_CORE = 1

_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_END_TIMEOUT_S = 10


class Process:
    """A child process on one core; ``with`` ends it by a signal, or by force if it doesn't heed that.

    Parameters:
        command: the program and its arguments.
        core: the core that it may use, ``None`` for any; ignored where the machine has but one.
        is_quiet: whether what it writes to its standard error is thrown away.
    """

    def __init__(self, command: Sequence[str | Path], *, core: int | None, is_quiet: bool = False) -> None:
        _raise_file_limit()
        pinned = [*command]
        if core is not None and len(os.sched_getaffinity(0)) > 1:
            pinned = [program("taskset", "util-linux"), "-c", str(core), *command]
        self._process = subprocess.Popen(
            pinned,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if is_quiet else None,
            text=True,
            cwd=ROOT,  # where any Python finds the benchmarks
        )
        self.pid = self._process.pid
        self._stdin = cast(IO[str], self._process.stdin)
        self._stdout = cast(IO[str], self._process.stdout)

    def __enter__(self) -> Process:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def read_line(self) -> str:
        """The next line that it prints."""
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait()}")
        return line.rstrip("\n")

    def write_line(self, line: str) -> None:
        self._stdin.write(f"{line}\n")
        self._stdin.flush()

    def cpu_s(self) -> float:
        """Processor time that it and its children have used, in seconds."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii").split()
        stats = [Path(f"/proc/{pid}/stat").read_text("ascii") for pid in (self.pid, *children)]
        ticks = sum(int(field) for stat in stats for field in stat.rpartition(")")[2].split()[11:13])
        return ticks / _CLOCK_TICKS_PER_S

    async def settled_cpu_s(self, settled_s: float) -> float:
        """The same, once it has had nothing to do for so long, in seconds."""
        used_s = -1.0
        while used_s != (used_s := self.cpu_s()):  # noqa: ASYNC110 - another process cannot set an event
            await asyncio.sleep(settled_s)
        return used_s

    def private_bytes(self) -> int:
        """Memory of its own at this moment, without what it shares with others (libraries, for example)."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text("utf-8").splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel reports no Private_Dirty")

    def end(self) -> None:
        """End it, and wait until it has."""
        self._stdin.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
