"""Processes that are measured: started on a core of their own, and ended without fail."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from .peers import ROOT, program

SERVER_CORE = 0
LOAD_CORE = 1

_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_END_TIMEOUT_S = 10


class Cpu(NamedTuple):
    """Processor time of a process so far, in seconds."""

    user_s: float
    system_s: float

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu(self.user_s - before.user_s, self.system_s - before.system_s)

    @property
    def total_s(self) -> float:
        return self.user_s + self.system_s


class Process:
    """A child process on one core; ``with`` ends it by a signal, or by force if it doesn't heed that.

    Parameters:
        command: the program and its arguments.
        core: the core that it may use, ``None`` for any; ignored where the machine has but one.
        environment: all of its environment; ``None`` for ours.
        is_quiet: whether what it writes to its standard error is thrown away.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        core: int | None,
        environment: Mapping[str, str] | None = None,
        is_quiet: bool = False,
    ) -> None:
        _raise_file_limit()
        pinned = [*command]
        if core is not None and _cores() > 1:
            pinned = [program("taskset", "util-linux"), "-c", str(core), *command]
        self._process = subprocess.Popen(
            pinned,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if is_quiet else None,
            text=True,
            env=environment,
            cwd=ROOT,  # where any Python finds the benchmarks
        )
        self.pid = self._process.pid

    def __enter__(self) -> Process:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def read_line(self) -> str:
        """The next line that it prints.

        Raises:
            RuntimeError: it has ended instead.
        """
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait()}")
        return line.rstrip("\n")

    def write_line(self, line: str) -> None:
        self._stdin.write(f"{line}\n")
        self._stdin.flush()

    def cpu(self) -> Cpu:
        """Processor time that it and its children have used."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii").split()
        ticks = [
            Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
            for pid in (self.pid, *children)
        ]
        user, system = (sum(map(int, column)) for column in zip(*ticks, strict=True))
        return Cpu(user / _CLOCK_TICKS_PER_S, system / _CLOCK_TICKS_PER_S)

    def private_bytes(self) -> int:
        """Memory of its own at this moment, without what it shares with others (libraries, for example)."""
        return self._kib("smaps_rollup", "Private_Dirty:") * 1024

    def most_resident_bytes(self) -> int:
        """The most memory that it has had so far, shared or not."""
        return self._kib("status", "VmHWM:") * 1024

    def _kib(self, file: str, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/{file}").read_text("utf-8").splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        raise RuntimeError(f"the kernel tells no {field}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

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


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
