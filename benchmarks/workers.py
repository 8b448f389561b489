"""Workers started side by side, and told to make their calls in turns."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .processes import LOAD_CORE, Process
from .rounds import interleave


class Timing(NamedTuple):
    """One run of a contender."""

    calls: int
    wall_s: float
    cpu_s: float

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.wall_s

    @property
    def calls_per_cpu_s(self) -> float:
        """Calls a second of processor time: the same on a busy machine as on an idle one."""
        return self.calls / self.cpu_s

    @property
    def cpu_us(self) -> float:
        """Of one call, in microseconds."""
        return 1e6 * self.cpu_s / self.calls


class Job(NamedTuple):
    """What a worker is to run.

    Attributes:
        python: the path of its Python.
        function: ``MODULE:FUNCTION`` in ``benchmarks.contenders``.
        arguments: for the function.
        environment: all that the worker has; ``None`` for ours.
    """

    python: str
    function: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] | None = None


class Worker:
    """A process with one contender in it."""

    def __init__(self, job: Job, stack: contextlib.ExitStack) -> None:
        module, _, function = job.function.partition(":")
        command = [job.python, "-m", "benchmarks.worker", f"benchmarks.contenders.{module}", function]
        self._process = stack.enter_context(
            Process([*command, *job.arguments], core=LOAD_CORE, environment=job.environment)
        )
        self._process.read_line()

    def run(self, calls: int, threads: int = 1) -> Timing:
        """Have each thread make so many calls."""
        self._process.write_line(f"{calls} {threads}")
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
