"""Processes that time one contender's call each; ``python -m benchmarks.workers FUNCTION URL`` is one of them.

It imports nothing of Tambur, because it also runs in the Python of the peers. The function of
``benchmarks.publishers`` makes the statement to time. Each line of the standard input is a count of calls, and the
answer is a line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
import timeit
from collections.abc import Mapping
from typing import Any, NamedTuple

from .processes import LOAD_CORE, Process
from .report import interleave


class Call(NamedTuple):
    """A statement to time, and the names that it uses."""

    statement: str
    names: dict[str, Any]


class Timing(NamedTuple):
    """One run of a contender."""

    calls: int
    wall_s: float
    cpu_s: float

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Of one call, in microseconds."""
        return 1e6 * self.cpu_s / self.calls


class Job(NamedTuple):
    """The job of a worker.

    Attributes:
        python: the path of its Python.
        function: of ``benchmarks.publishers``.
        url: of the server that it publishes to.
    """

    python: str
    function: str
    url: str


class Worker:
    """A process with one contender in it."""

    def __init__(self, job: Job, stack: contextlib.ExitStack) -> None:
        command = [job.python, "-m", "benchmarks.workers", job.function, job.url]
        self._process = stack.enter_context(Process(command, core=LOAD_CORE))
        self._process.read_line()

    def run(self, calls: int) -> Timing:
        self._process.write_line(f"{calls}")
        return Timing(**json.loads(self._process.read_line()))


def race(jobs: Mapping[str, Job], *, rounds: int, round_s: float) -> dict[str, list[Timing]]:
    """Time all jobs in turns.

    Parameters:
        rounds: how often each has its turn.
        round_s: about how long a turn takes, in seconds.
    """
    with contextlib.ExitStack() as stack:
        workers = {name: Worker(job, stack) for name, job in jobs.items()}
        turns = {}
        for name, worker in workers.items():
            calls = _calibrate(worker, round_s)
            turns[name] = lambda worker=worker, calls=calls: worker.run(calls)
        return interleave(turns, rounds)


def _calibrate(worker: Worker, round_s: float) -> int:
    calls = 1
    worker.run(calls)  # what is done once only, such as connecting
    while (timing := worker.run(calls)).wall_s < round_s / 4:
        calls = max(
            2 * calls, int(calls * round_s / 3 / timing.wall_s) if timing.wall_s > round_s / 100 else 0
        )
    return max(1, int(calls * round_s / timing.wall_s))


def main() -> None:
    function, url = sys.argv[1:]
    call: Call = getattr(importlib.import_module("benchmarks.publishers"), function)(url)
    timer = timeit.Timer(call.statement, globals=call.names)
    print("{}", flush=True)
    for line in sys.stdin:
        before, started_at = time.process_time(), time.perf_counter()
        timer.timeit(int(line))
        used = {"wall_s": time.perf_counter() - started_at, "cpu_s": time.process_time() - before}
        print(json.dumps({"calls": int(line), **used}), flush=True)


if __name__ == "__main__":
    main()
