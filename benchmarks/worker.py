"""A process that runs one contender's call as often as it is told; ``python -m benchmarks.worker``.

It imports nothing of Tambur by itself: it also runs in the Python of the peers.

    python -m benchmarks.worker MODULE FUNCTION [ARGUMENT...]

The function makes the contender of the arguments: the statement to time, and the names in it. Each line
of the standard input is a count of calls and of threads that make as many each; its answer is a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import threading
import time
import timeit
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A statement to time, and the names that it uses."""

    statement: str
    names: dict[str, Any]


def main() -> None:
    module, function, *arguments = sys.argv[1:]
    call: Call = getattr(importlib.import_module(module), function)(*arguments)
    timer = timeit.Timer(call.statement, globals=call.names)
    print("{}", flush=True)
    for line in sys.stdin:
        count, threads = map(int, line.split())
        print(json.dumps(_measure(timer, count, threads)), flush=True)


def _measure(timer: timeit.Timer, count: int, thread_count: int) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    started_at = time.perf_counter()
    if thread_count == 1:
        timer.timeit(count)
    else:
        threads = [threading.Thread(target=timer.timeit, args=[count]) for _ in range(thread_count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wall_s = time.perf_counter() - started_at
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    calls = count * thread_count
    return {"calls": calls, "wall_s": wall_s, "cpu_s": cpu_s}


if __name__ == "__main__":
    main()
