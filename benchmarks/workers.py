"""Processes that time one contender's call each; ``python -m benchmarks.workers FUNCTION URL`` is one of them.

It imports nothing of Tambur, because it also runs in the Python of the peers. The function of
``benchmarks.publishers`` makes the statement to time. Each line of the standard input is a time in seconds, and the
answer is a line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
import timeit
from typing import Any, NamedTuple

from .processes import LOAD_CORE, Process


class Call(NamedTuple):
    """A statement to time, the names that it uses, and how often it is run between two looks at the clock."""

    statement: str
    names: dict[str, Any]
    at_once: int = 10


class Timing(NamedTuple):
    """One run of a contender, and the processor time of its server."""

    calls: int
    wall_s: float
    cpu_s: float
    server_s: float = 0.0

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Of one call, in microseconds."""
        return 1e6 * self.cpu_s / self.calls


class Worker:
    """A process with one contender in it.

    Parameters:
        python: the path of its Python.
        function: of ``benchmarks.publishers``.
        url: of the server that it publishes to.
    """

    def __init__(self, python: str, function: str, url: str, stack: contextlib.ExitStack) -> None:
        command = [python, "-m", "benchmarks.workers", function, url]
        self._process = stack.enter_context(Process(command, core=LOAD_CORE))
        self._process.read_line()

    def run(self, seconds: float) -> Timing:
        """Call for so long."""
        self._process.write_line(f"{seconds}")
        return Timing(**json.loads(self._process.read_line()))


def main() -> None:
    function, url = sys.argv[1:]
    call: Call = getattr(importlib.import_module("benchmarks.publishers"), function)(url)
    timer = timeit.Timer(call.statement, globals=call.names)
    timer.timeit(1)  # what is done once only, such as connecting
    print("{}", flush=True)
    for line in sys.stdin:
        calls, before, started_at = 0, time.process_time(), time.perf_counter()
        while (wall_s := time.perf_counter() - started_at) < float(line):
            timer.timeit(call.at_once)
            calls += call.at_once
        cpu_s = time.process_time() - before
        print(json.dumps({"calls": calls, "wall_s": wall_s, "cpu_s": cpu_s}), flush=True)


if __name__ == "__main__":
    main()
