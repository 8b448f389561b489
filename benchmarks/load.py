"""The load on a server that delivers: subscribers and publishers in one process on the other core."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .peers import compiled
from .processes import LOAD_CORE, Process
from .servers import Server, Starter, message


class Run(NamedTuple):
    """The result of one run; the load's own figures are in its C file.

    Attributes:
        found: of the load.
        server_s: processor time of the server, in seconds.
        redis_s: the same of its Redis.
    """

    found: dict[str, Any]
    server_s: float
    redis_s: float

    @property
    def deliveries_per_s(self) -> float:
        return float(self.found["deliveries"] / self.found["seconds"])

    @property
    def publishes_per_s(self) -> float:
        return float(self.found["published"] / self.found["seconds"])

    @property
    def p50_ms(self) -> float:
        return float(self.found["p50_ms"])

    @property
    def p99_ms(self) -> float:
        return float(self.found["p99_ms"])

    @property
    def cpu_us(self) -> float:
        """The server's processor time of a delivery, in microseconds."""
        return 1e6 * self.server_s / int(self.found["deliveries"])

    def us_a_publish(self, used_s: float) -> float:
        """Processor time of a publish, in microseconds."""
        return 1e6 * used_s / int(self.found["published"])


class Load:
    """A server's subscribers and publishers."""

    def __init__(self, server: Server, process: Process) -> None:
        self.server = server
        self._process = process

    def run(self, mode: str, amount: float, of: float = 1) -> Run:
        """One run, of the modes that load.c knows."""
        processes = (self.server.process, self.server.redis)
        before = [process.cpu_s() if process else 0.0 for process in processes]
        self._process.write_line(f"{mode} {amount} {of}")
        found = json.loads(self._process.read_line())
        after = [process.cpu_s() if process else 0.0 for process in processes]
        run = Run(found, after[0] - before[0], after[1] - before[1])
        if (found["deliveries"], found["answered"]) != (found["expected"], found["published"]):
            raise RuntimeError(f"something was lost: {found}")
        return run


@contextlib.contextmanager
def loaded(start: Starter, subscribers: int, requests: int) -> Iterator[Load]:
    """A fresh server with a load."""
    with start() as server, subscribed(server, subscribers, requests) as load:
        yield load


@contextlib.contextmanager
def subscribed(server: Server, subscribers: int, requests: int = 0) -> Iterator[Load]:
    """Connect subscribers, and prepare requests."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        prepared = Path(directory, "requests")
        with prepared.open("wb") as file:
            for number in range(requests):
                request = server.request(message(number))
                file.write(struct.pack("<I", len(request)) + request)
        options = {**server.options, "subscribers": subscribers, "requests": prepared}
        words = [str(word) for option in options.items() for word in option]
        process = stack.enter_context(Process([compiled("load"), str(server.port), *words], core=LOAD_CORE))
        process.read_line()
        yield Load(server, process)
