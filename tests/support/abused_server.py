"""A server under abuse, and a bystander that behaves: how soon its messages arrive."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tambur import Tambur
from tambur.server import Limits
from tambur.server.listeners import FILES_BESIDES

from . import abuse, abuser, stream_abuse
from .app import API_KEY, APP_ID, SECRET
from .wire import Socket, connect, read_answer

ROUNDS = int(os.environ.get("TAMBUR_ABUSE_ROUNDS", "10"))
TIMEOUT_S = 600
KIB, MIB = 1024, 1024 * 1024

STEP_S = 20
"""By how much the clock of a clocked server moves at once, in seconds: a bystander may be silent for so long."""

UNRELATED = 16 * MIB
"""The normal growth of any process: its allocator's spare memory, and garbage."""

MAX_PUBLISHES_PER_S = 500

PROCESSES = multiprocessing.get_context("forkserver")
"""For abusers, so that each is a process of its own and none waits until Python has imported everything again."""
PROCESSES.set_forkserver_preload(["__main__", abuse.__name__, stream_abuse.__name__])


_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from tambur.cli import main; sys.exit(main())"


class Serving:
    """``tambur serve`` with two apps: the bystander's, and the abusers'.

    Parameters:
        limits: of its configuration; ``max_connections`` is lowered where it may open too few files for it.
        directory: where its configuration and its log are kept.
        words: further arguments of its command line.
        files: how many files it may have open, on asyncio's own event loop, which has its own ways with them;
            ``None`` for as many as the system allows.
        is_clocked: whether :meth:`pass_time` moves its clock, so that only a test makes it lose patience.
    """

    def __init__(
        self,
        limits: Limits,
        directory: Path,
        *words: str,
        files: int | None = None,
        is_clocked: bool = False,
    ) -> None:
        self.max_connections = limits.max_connections if files is None else files - FILES_BESIDES
        config = directory / "tambur.toml"
        # Kept messages have their own limit, and would hide the memory of the abuse itself.
        bounded = dataclasses.replace(limits, max_history_bytes=MIB)
        settings = "\n".join(f"{name} = {value}" for name, value in vars(bounded).items())
        config.write_text(
            f'[server]\nport = 0\n[limits]\n{settings}\n[[apps]]\napi_key = "{API_KEY}"\napp_id = "{APP_ID}"\n'
            f'secrets = ["{SECRET}"]\n[[apps]]\napi_key = "{abuser.API_KEY}"\napp_id = "{abuser.APP_ID}"\n'
            f'secrets = ["{abuser.SECRET}"]\nmax_publishes_per_s = {MAX_PUBLISHES_PER_S}\n',
            "utf-8",
        )
        program = [sys.executable, "-m", "tambur"]
        if files is not None:
            limited = ["bash", "-ec", f'ulimit -n {files}; exec "$@"', "bash"]
            program = [*limited, sys.executable, "-c", _WITHOUT_UVLOOP]
        command = [*program, "serve", "--config", str(config), *words]
        if is_clocked:
            command = [sys.executable, "-m", "tests.support.clock", str(config)]
        self._is_clocked = is_clocked
        self._log = directory / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("Tambur is listening on ").strip()

    def pass_time(self) -> None:
        """Move the clock of a clocked server by :data:`STEP_S`."""
        if self._is_clocked:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(f"{STEP_S}\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "moved\n"

    def end(self) -> None:
        with self.process:
            self.process.terminate()

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def files(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def memory(self, field: str) -> int:
        """``VmRSS``, or ``VmHWM`` for the most since :meth:`forget_peak`, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * KIB

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", "ascii")


@contextlib.contextmanager
def serving(
    limits: Limits,
    made: pytest.TempPathFactory,
    *words: str,
    files: int | None = None,
    is_clocked: bool = False,
) -> Iterator[Serving]:
    server = Serving(limits, made.mktemp("serving"), *words, files=files, is_clocked=is_clocked)
    try:
        yield server
    finally:
        server.end()


class Latency(NamedTuple):
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.p50_ms:.1f} | {self.p99_ms:.1f}"


class Bystander:
    """A subscriber that behaves, and a publisher for it; each message is sent when the last has come."""

    def __init__(self, server: Serving) -> None:
        self._subscriber = Socket(server)
        self._publisher = connect(server)
        self._client = Tambur(API_KEY, APP_ID, SECRET, server.url)
        self._head = (
            f"Host: {server.url.partition('://')[2]}\r\nContent-Type: application/x-www-form-urlencoded"
        )
        self._numbers = itertools.count()
        self.stream = str(time.monotonic_ns())
        for connection in (self._subscriber.connection, self._publisher):
            connection.settimeout(TIMEOUT_S)
        assert self._subscriber.command("subscribe", 1, self.stream) == ["ack", 1, "ok"]

    def __enter__(self) -> Bystander:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self._subscriber.connection.close()
        self._publisher.close()
        self._client.close()

    def send(self) -> float:
        """One message, which must be the next that arrives; how long that takes, in seconds."""
        text = str(next(self._numbers))
        made = self._client.build_request(self.stream, text, int(time.time()), f"{self.stream}-{text}")
        assert isinstance(made.body, str)
        line = f"POST {made.path_url} HTTP/1.1"
        request = f"{line}\r\n{self._head}\r\nContent-Length: {len(made.body)}\r\n\r\n{made.body}".encode()
        started = time.perf_counter()
        self._publisher.sendall(request)
        assert self._subscriber.json() == ["msg", self.stream, "public", text]
        latency = time.perf_counter() - started
        assert read_answer(self._publisher).status == 204
        return latency

    def measure(self) -> Latency:
        found = sorted(1000 * self.send() for _ in range(ROUNDS))
        return Latency(found[len(found) // 2], found[len(found) * 99 // 100])


@contextlib.contextmanager
def abused(
    server: Serving, bystander: Bystander, name: str, clients: int, *, stream: str | None = None
) -> Iterator[dict[str, float]]:
    """A running abuse; at the end, the yielded object holds its clients' observations.

    Parameters:
        stream: the one whose subscribers suffer; ``None`` for an abuse of the server as a whole.
    """
    abuse_ = getattr(abuse if stream is None else stream_abuse, name)
    files = server.files
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=abuser.run, args=(abuse_, server.port, clients, stream or "", theirs))
    process.start()
    theirs.close()
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not ours.poll():
            bystander.send()
            if server.files >= files + clients:
                server.pass_time()
            assert time.monotonic() < deadline
        seen: dict[str, float] = ours.recv()
        yield seen
        ours.send(None)
        seen |= ours.recv()
    finally:
        ours.close()
        process.join()
    assert process.exitcode == 0


def each(*answers: str) -> Callable[[dict[str, float], int], bool]:
    """Each client has seen the first answer, or perhaps the others, and none has seen anything else."""

    def is_bounded(seen: dict[str, float], clients: int) -> bool:
        found = {answer: count for answer, count in seen.items() if answer != "seconds"}
        return found.keys() <= set(answers) and answers[0] in found and sum(found.values()) >= clients

    return is_bounded


def at_most(answer: str, per_s: float, besides: int = 0) -> Callable[[dict[str, float], int], bool]:
    """The answers that a client gets in a second. After a silent second it gets twice as many."""

    def is_bounded(seen: dict[str, float], clients: int) -> bool:
        return 0 < seen[answer] <= clients * (per_s * (seen["seconds"] + 1) + besides)

    return is_bounded


def wait_for_files(server: Serving, count: int, bystander: Bystander) -> None:
    """Wait until the server has closed the abuse's connections; the bystander continues meanwhile."""
    deadline = time.monotonic() + TIMEOUT_S
    while server.files > count:
        assert time.monotonic() < deadline, f"{server.files} files are open, {count} were"
        bystander.send()


def report(name: str, clients: int, limits: str, idle: Latency, beside: Latency, grown: int) -> None:
    print(f"\n| {name} | {clients:,} | `{limits}` | {idle} | {beside} | {grown / MIB:.1f} |")  # noqa: T201
