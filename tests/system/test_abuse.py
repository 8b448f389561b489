"""What abusers may cost: each is bounded by a limit, and who behaves beside them gets all its messages.

With ``pytest -s`` each test prints a row of the table in docs/explanation/security.md: how soon the bystander's messages
arrive, and the most memory that the abuse took. ``TAMBUR_ABUSE_ROUNDS`` says of how many messages, 50 if not set.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.frames import Opcode

from tambur import Tambur
from tambur.server import Limits
from tambur.server.app import FILES_BESIDES
from tambur.server.transports.http_protocol import MAX_PIPELINED_REQUESTS
from tambur.server.transports.websocket import FRAMES_IN_A_ROW, PARSED_BYTES
from tests.conftest import API_KEY, APP_ID, SECRET

from ..support import abuse
from ..support.wire import Socket, connect, handshake, read_answer

ROUNDS = int(os.environ.get("TAMBUR_ABUSE_ROUNDS", "50"))
IDLE = 10_000
TIMEOUT_S = 60
KIB, MIB = 1024, 1024 * 1024

READ_AT_ONCE = 256 * KIB
"""What an event loop reads of a connection at once, at most."""

UNRELATED = 16 * MIB
"""What a process may grow by whatever it does: its allocator's spare memory, and garbage."""

LIMITS = Limits(max_connections=IDLE + 20, max_long_polling_subscribers=500)
IMPATIENT = Limits(max_connections=30, request_timeout_s=1, ping_interval_s=1, ping_timeout_s=2)
MAX_PUBLISHES_PER_S = 500


class Serving:
    """``tambur serve`` with two apps: the bystander's, and the abusers'."""

    def __init__(self, limits: Limits, directory: Path) -> None:
        config = directory / "tambur.toml"
        settings = "\n".join(f"{name} = {value}" for name, value in vars(limits).items())
        config.write_text(
            f'[server]\nport = 0\n[limits]\n{settings}\n[[apps]]\napi_key = "{API_KEY}"\napp_id = "{APP_ID}"\n'
            f'secrets = ["{SECRET}"]\n[[apps]]\napi_key = "{abuse.API_KEY}"\napp_id = "{abuse.APP_ID}"\n'
            f'secrets = ["{abuse.SECRET}"]\nmax_publishes_per_s = {MAX_PUBLISHES_PER_S}\n',
            "utf-8",
        )
        self._log = directory / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tambur", "serve", "--config", str(config)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("Tambur is listening on ").strip()

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
def serving(limits: Limits, made: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(limits, made.mktemp("serving"))
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(LIMITS, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(IMPATIENT, tmp_path_factory) as server:
        yield server


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
            f"Host: {server.url.removeprefix('http://')}\r\nContent-Type: application/x-www-form-urlencoded"
        )
        self._numbers = itertools.count()
        self._stream = str(time.monotonic_ns())
        for connection in (self._subscriber.connection, self._publisher):
            connection.settimeout(TIMEOUT_S)
        assert self._subscriber.command("subscribe", 1, self._stream) == ["ack", 1, "ok"]

    def __enter__(self) -> Bystander:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self._subscriber.connection.close()
        self._publisher.close()
        self._client.close()

    def send(self) -> float:
        """One message, which must be the next that arrives; how long that takes, in seconds."""
        text = str(next(self._numbers))
        made = self._client.build_request(self._stream, text, int(time.time()), f"{self._stream}-{text}")
        assert isinstance(made.body, str)
        line = f"POST {made.path_url} HTTP/1.1"
        request = f"{line}\r\n{self._head}\r\nContent-Length: {len(made.body)}\r\n\r\n{made.body}".encode()
        started = time.perf_counter()
        self._publisher.sendall(request)
        assert self._subscriber.json() == ["msg", self._stream, "public", text]
        latency = time.perf_counter() - started
        assert read_answer(self._publisher).status == 204
        return latency

    def measure(self) -> Latency:
        found = sorted(1000 * self.send() for _ in range(ROUNDS))
        return Latency(found[len(found) // 2], found[len(found) * 99 // 100])


@contextlib.contextmanager
def abused(server: Serving, bystander: Bystander, name: str, clients: int) -> Iterator[dict[str, float]]:
    """An abuse that is under way; what its clients have seen is in what is yielded, at the end."""
    words = [sys.executable, "-m", "tests.support.abuse", str(server.port), name, str(clients)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    seen: dict[str, float] = {}
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        deadline = time.monotonic() + TIMEOUT_S
        while not select.select([process.stdout], [], [], 0)[0]:
            bystander.send()
            assert time.monotonic() < deadline
        seen |= json.loads(process.stdout.readline())
        yield seen
        process.stdin.close()
        seen |= json.loads(process.stdout.readline())
    assert process.returncode == 0


class Case(NamedTuple):
    """An abuse.

    Attributes:
        limits: what bounds it, by name.
        memory: what each client may have the server keep, in bytes, by those limits.
        is_bounded: whether what the clients have seen shows that.
        is_impatient: whether the server shall be one that waits for little.
    """

    name: str
    clients: int
    limits: str
    memory: int
    is_bounded: Callable[[dict[str, float], int], bool]
    is_impatient: bool = False


def each(*answers: str) -> Callable[[dict[str, float], int], bool]:
    """Each client has seen the first answer, or perhaps the others, and none has seen anything else."""

    def is_bounded(seen: dict[str, float], clients: int) -> bool:
        found = {answer: count for answer, count in seen.items() if answer != "seconds"}
        return found.keys() <= set(answers) and answers[0] in found and sum(found.values()) >= clients

    return is_bounded


def at_most(answer: str, per_s: float, besides: int = 0) -> Callable[[dict[str, float], int], bool]:
    """A client gets so many answers a second; who has been silent for one has those of that second at once."""

    def is_bounded(seen: dict[str, float], clients: int) -> bool:
        return 0 < seen[answer] <= clients * (per_s * (seen["seconds"] + 1) + besides)

    return is_bounded


CASES = [
    Case(
        "handshakes",
        50,
        "max_connections",
        64 * KIB,
        # How many are there at the same moment is chance; the server's open files show that it keeps to its limit.
        lambda seen, _: seen.keys() <= {"503", "101", "closed", "seconds"},
        is_impatient=True,
    ),
    Case("never_read", 5, "max_unsent_bytes", LIMITS.max_unsent_bytes + 64 * KIB, each("closed")),
    Case("never_read_answers", 5, "request_timeout_s", READ_AT_ONCE, each("closed"), is_impatient=True),
    Case("drip_head", 20, "request_timeout_s", IMPATIENT.max_header_bytes, each("408"), is_impatient=True),
    Case("drip_body", 20, "request_timeout_s", IMPATIENT.max_body_bytes, each("408"), is_impatient=True),
    Case("drip_frame", 20, "ping_timeout_s", IMPATIENT.max_frame_bytes, each("closed"), is_impatient=True),
    Case(
        "streams",
        10,
        "max_streams_per_subscriber",
        4 * KIB * LIMITS.max_streams_per_subscriber,
        lambda seen, clients: (seen["ok"], seen["too_many_streams"]) == (1000 * clients, clients),
    ),
    Case(
        "publishes",
        20,
        "max_publishes_per_s",
        64 * KIB,
        lambda seen, _: seen["204"] <= MAX_PUBLISHES_PER_S * (seen["seconds"] + 1) and seen["429"] > 0,
    ),
    Case("forgeries", 20, "max_connections", 64 * KIB, each("401")),
    Case(
        "pipeline", 5, "MAX_PIPELINED_REQUESTS", MAX_PIPELINED_REQUESTS * READ_AT_ONCE, each("429", "closed")
    ),
    Case("commands", 20, "max_commands_per_s", 2 * READ_AT_ONCE, at_most("TEXT", LIMITS.max_commands_per_s)),
    Case(
        "pings",
        20,
        "max_commands_per_s",
        2 * READ_AT_ONCE,
        at_most(
            "PONG", LIMITS.max_commands_per_s, FRAMES_IN_A_ROW + PARSED_BYTES // len(abuse.frame(Opcode.PING))
        ),
    ),
    Case("fragments", 5, "max_frame_bytes", 2 * LIMITS.max_frame_bytes, each("CLOSE 1009", "closed")),
    Case("poll_again", 20, "max_long_polling_subscribers", 64 * KIB, each("200")),
    Case(
        "polls",
        20,
        "max_long_polling_subscribers",
        16 * KIB * LIMITS.max_long_polling_subscribers // 20,
        lambda seen, _: seen["200"] <= LIMITS.max_long_polling_subscribers and seen["503"] > 0,
    ),
    Case("body", 5, "max_body_bytes", LIMITS.max_body_bytes + 2 * READ_AT_ONCE, each("413", "closed")),
    Case("head", 5, "max_header_bytes", LIMITS.max_header_bytes + 2 * READ_AT_ONCE, each("431", "closed")),
    Case(
        "trailers", 5, "max_header_bytes", LIMITS.max_header_bytes + 2 * READ_AT_ONCE, each("431", "closed")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_abuse_is_bounded_and_a_bystander_gets_its_messages(
    case: Case, patient: Serving, impatient: Serving
) -> None:
    server = impatient if case.is_impatient else patient
    with Bystander(server) as bystander:
        idle = bystander.measure()
        files, before = server.files, server.memory("VmRSS")
        server.forget_peak()
        with abused(server, bystander, case.name, case.clients) as seen:
            beside = bystander.measure()
            assert server.files <= server_limits(case).max_connections + FILES_BESIDES
        grown = server.memory("VmHWM") - before
        report(case.name, case.clients, case.limits, idle, beside, grown)
        assert case.is_bounded(seen, case.clients), seen
        assert grown <= case.clients * case.memory + UNRELATED
        wait_for_files(server, files)
        bystander.send()
    assert "Traceback" not in server.log


def server_limits(case: Case) -> Limits:
    return IMPATIENT if case.is_impatient else LIMITS


def wait_for_files(server: Serving, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while server.files > count:
        assert time.monotonic() < deadline, f"{server.files} files are open, {count} were"
        time.sleep(0.02)


def report(name: str, clients: int, limits: str, idle: Latency, beside: Latency, grown: int) -> None:
    print(f"\n| {name} | {clients:,} | `{limits}` | {idle} | {beside} | {grown / MIB:.1f} |")  # noqa: T201


def test_ten_thousand_connections_idle_and_one_too_many_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    needed = LIMITS.max_connections + FILES_BESIDES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.fail(
            f"{IDLE} connections need {needed} open files, and this system allows {hard} (ulimit -Hn)"
        )
    with serving(LIMITS, tmp_path_factory) as server, Bystander(server) as bystander:
        idle = bystander.measure()
        files, before = server.files, server.memory("VmRSS")
        with abused(server, bystander, "idle", IDLE) as seen:
            assert seen == {"connected": IDLE}
            assert server.files == files + IDLE
            beside = bystander.measure()
            with contextlib.ExitStack() as stack:
                for expected in [101] * (LIMITS.max_connections - IDLE - 2) + [503] * 3:
                    one = stack.enter_context(connect(server))
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        one.sendall(handshake())
                    assert read_answer(one).status == expected
            grown = server.memory("VmRSS") - before
        report("idle", IDLE, "max_connections", idle, beside, grown)
        assert grown <= IDLE * 16 * KIB + UNRELATED
        wait_for_files(server, files)
        with Socket(server) as newcomer:
            assert newcomer.command("subscribe", 1, "x") == ["ack", 1, "ok"]
        assert "Traceback" not in server.log
