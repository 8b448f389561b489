"""Publishing through each library's public call, from one thread: one message, and many."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from . import publishers, servers
from .peers import MissingError, compiled, python_version_of, python_with
from .processes import SERVER_CORE, Process
from .report import Section, interleave, table
from .workers import Timing, Worker

TAMBUR = "tambur"
OF_2012 = "the package of 2012"


class _Contender(NamedTuple):
    function: str
    answer: str
    package: str = ""


CONTENDERS = {
    TAMBUR: _Contender("tambur", publishers.TAMBUR_ANSWER),
    OF_2012: _Contender("requests_oauthlib", publishers.TAMBUR_ANSWER, "requests-oauthlib"),
    "pusher": _Contender("pusher", publishers.PUSHER_ANSWER, "pusher"),
    "ably": _Contender("ably", publishers.ABLY_ANSWER, "ably"),
    "cent": _Contender("cent", publishers.CENT_ANSWER, "cent"),
}


def find() -> tuple[dict[str, str], dict[str, MissingError]]:
    """The Python of each contender, and those that are missing."""
    pythons: dict[str, str] = {}
    missing: dict[str, MissingError] = {}
    for name, contender in CONTENDERS.items():
        try:
            package = contender.package
            pythons[name] = python_with(package.replace("-", "_"), package) if package else sys.executable
        except MissingError as error:
            missing[name] = error
    return pythons, missing


@contextlib.contextmanager
def _answering(answer: str, awake_ms: float) -> Iterator[tuple[Process, str]]:
    """A server that gives one answer to everything, and does not sleep for so long after a request; and its URL."""
    with Process([compiled("limit"), str(awake_ms), answer], core=SERVER_CORE) as server:
        yield server, f"http://127.0.0.1:{server.read_line()}"


def _label(name: str, python: str) -> str:
    package = CONTENDERS[name].package
    return f"{name} {python_version_of(python, package)}" if package and name != OF_2012 else name


# Longer than a library takes to its next request. The servers share a core, so only the one that is measured may
# stay awake.
_AWAKE_MS = {"a server that is awake": 5.0, "a server that sleeps": 0.0}


def publish(*, quick: bool) -> Section:
    """One thread, one connection."""
    pythons, missing = find()
    with contextlib.ExitStack() as stack:
        turns = {}
        for server, awake_ms in _AWAKE_MS.items():
            for name, python in pythons.items():
                _, url = stack.enter_context(_answering(CONTENDERS[name].answer, awake_ms))
                worker = Worker(python, CONTENDERS[name].function, url, stack)
                turns[f"{name}, {server}"] = partial(worker.run, 0.1 if quick else 0.5)
        timings = interleave(turns, rounds=1 if quick else 9)
    figures: dict[str, Callable[[Timing], float]] = {
        "publishes/s": lambda timing: timing.calls_per_s,
        "CPU µs each": lambda timing: timing.cpu_us,
    }
    tables = []
    for server in _AWAKE_MS:
        of_server = {_label(name, python): timings[f"{name}, {server}"] for name, python in pythons.items()}
        tables.append(table(f"to {server}", of_server, figures, against=OF_2012, missing=missing))
    return Section(
        "Publishing",
        "One thread publishes a message of 128 bytes through each library's public call to a small server in C, which "
        "answers immediately. Waiting for an answer costs processor time, too. In the first table the server does not sleep, so its answer is there "
        "before a library waits. In the second table both sides sleep, as over a network.",
        tables,
    )


def batch(*, quick: bool) -> Section:
    """Many messages at once."""
    pythons, missing = find()
    missing = {f"{name}, `trigger_batch`": error for name, error in missing.items() if name == "pusher"}
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(servers.tambur())
        c, c_url = stack.enter_context(_answering(publishers.TAMBUR_ANSWER, 0.0))
        c_key_url = c_url.replace("//", "//k:s@") + "/app/a"
        rows = {
            "`publish` in a loop": ("tambur", "tambur_loop", node.url, node.process),
            "`publish_many`": ("tambur", "tambur_many", node.url, node.process),
            "`publish_many`, server in C": ("tambur", "tambur_many", c_key_url, c),
        }
        if "pusher" in pythons:
            other, other_url = stack.enter_context(_answering(publishers.PUSHER_ANSWER, 0.0))
            rows["pusher, `trigger_batch`, server in C"] = ("pusher", "pusher_batch", other_url, other)

        def measure(worker: Worker, size: int, server: Process) -> Timing:
            before = server.cpu_s()
            run = worker.run(0.1 if quick else 2.0)
            return run._replace(calls=run.calls * size, server_s=server.cpu_s() - before)

        turns = {}
        for row, (name, function, of, server) in rows.items():
            worker = Worker(pythons[name], function, of, stack)
            turns[row] = partial(measure, worker, publishers.SIZES[function], server)
        results = interleave(turns, 1 if quick else 7)
    figures: dict[str, Callable[[Timing], float]] = {
        "messages/s": lambda timing: timing.calls_per_s,
        "caller, CPU µs each": lambda timing: timing.cpu_us,
        "server, CPU µs each": lambda timing: 1e6 * timing.server_s / timing.calls,
    }
    return Section(
        "Many messages",
        "One thread publishes messages of 128 bytes to 100 streams without subscribers: 500 in a loop, or 10,000 with one "
        "call. Pusher allows 10 in a batch. A server in C only answers.",
        [table("one caller", results, figures, against=next(iter(rows)), missing=missing)],
    )
