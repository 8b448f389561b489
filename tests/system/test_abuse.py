"""The cost of abuse: a limit bounds each kind, and well-behaved clients receive all their messages.

With ``pytest -s`` each test prints a row of the table in docs/explanation/security.md: how soon the bystander's messages
arrive, and the most memory that the abuse took. ``TAMBUR_ABUSE_ROUNDS`` says of how many messages, 10 if not set;
``TAMBUR_ABUSE_IDLE`` how many connections idle, 4,000 if not set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from websockets.frames import Opcode
from websockets.http11 import MAX_LINE_LENGTH

from tambur.server import Limits
from tambur.server.connection import EVENTS_PER_COMMAND, MAX_QUEUED_COMMANDS
from tambur.server.listeners import FILES_BESIDES
from tambur.server.memory import UNCOUNTED_BYTES
from tambur.server.transports.http_protocol import MAX_PIPELINED_REQUESTS
from tambur.server.transports.websocket import FRAMES_IN_A_ROW, PARSED_BYTES

from ..support.abused_server import (
    KIB,
    MAX_PUBLISHES_PER_S,
    MIB,
    UNRELATED,
    Bystander,
    Serving,
    abused,
    at_most,
    each,
    report,
    serving,
    wait_for_files,
)
from ..support.abuser import LOST_COMMANDS, LOST_POSTS, frame
from ..support.certificate import Certificate
from ..support.stream_abuse import DIRECT_BYTES
from ..support.wire import Socket, connect, handshake, read_answer

IDLE = int(os.environ.get("TAMBUR_ABUSE_IDLE", "4000"))

READ_AT_ONCE = 256 * KIB
"""The most that an event loop reads from a connection at once."""

# Nobody is cut off for being late, however long a busy machine takes.
LIMITS = Limits(
    max_connections=IDLE + 20,
    max_long_polling_subscribers=500,
    request_timeout_s=3600,
    ping_interval_s=3600,
    ping_timeout_s=7200,
)
CROWDED = dataclasses.replace(LIMITS, max_connections=30, max_commands_per_s=10)
# In seconds of a clock that a test moves.
IMPATIENT = dataclasses.replace(LIMITS, request_timeout_s=50)
WATCHFUL = dataclasses.replace(LIMITS, ping_interval_s=50, ping_timeout_s=100)
SMALL = dataclasses.replace(LIMITS, max_held_bytes=8 * MIB)
IMPATIENT_WITH_TLS = Limits(request_timeout_s=3)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(LIMITS, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server whose polling subscribers may stay, whatever test comes next."""
    with serving(LIMITS, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(CROWDED, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(IMPATIENT, tmp_path_factory, is_clocked=True) as server:
        yield server


@pytest.fixture(scope="module")
def watchful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(WATCHFUL, tmp_path_factory, is_clocked=True) as server:
        yield server


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that may hold little for its clients."""
    with serving(SMALL, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with TLS that may open few files."""
    certificate = Certificate(tmp_path_factory.mktemp("certificate"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in certificate.trusting.items():
            patch.setenv(name, value)
        words = ("--tls-cert", certificate.both)
        with serving(IMPATIENT_WITH_TLS, tmp_path_factory, *words, files=300) as server:
            yield server


class Case(NamedTuple):
    """An abuse.

    Attributes:
        limits: what bounds it, by name.
        memory: the server's memory for each client by those limits, in bytes.
        is_bounded: whether the clients' observations show that.
        server: the fixture with the server for it.
        is_on_stream: whether it is one of :mod:`tests.support.stream_abuse`, on the bystander's stream.
    """

    name: str
    clients: int
    limits: str
    memory: int
    is_bounded: Callable[[dict[str, float], int], bool]
    server: str = "patient"
    is_on_stream: bool = False


AUDIENCE = 200


def toggles(seen: dict[str, float], clients: int) -> bool:
    """A toggle is two commands; the list, the join and the leave are so many events for each of the others."""
    commands_a_toggle = 2 + 3 * (clients - 1) / EVENTS_PER_COMMAND
    return at_most("ok", 2 * LIMITS.max_commands_per_s / commands_a_toggle)(seen, 1)


def direct_bytes(seen: dict[str, float], clients: int) -> bool:
    """A message that exceeds the limit is sent whole; the next one is refused."""
    messages_per_s = LIMITS.max_direct_bytes_per_s / DIRECT_BYTES
    return at_most("ok", messages_per_s, besides=1)(seen, clients) and seen["rate_limited"] > 0


def hoard(name: str, clients: int, *, is_on_stream: bool = False) -> Case:
    """The memory of all clients together is limited; those that hold most are closed."""

    def is_bounded(seen: dict[str, float], _: int) -> bool:
        return seen.keys() == {"closed", "seconds"}

    memory = SMALL.max_held_bytes // clients + 2 * UNCOUNTED_BYTES
    return Case(name, clients, "max_held_bytes", memory, is_bounded, "small", is_on_stream)


CASES = [
    hoard("hoard_streams", 12, is_on_stream=True),
    hoard("hoard_messages", 100, is_on_stream=True),
    hoard("hoard_pings", 120),
    hoard("hoard_requests", 200),
    Case("silence", 400, "max_connections", 80 * KIB, each("closed"), server="encrypted"),
    Case(
        "handshakes",
        50,
        "max_connections",
        64 * KIB,
        # How many are there at the same moment is chance; the server's open files show that it keeps to its limit.
        lambda seen, _: seen.keys() <= {"503", "101", "closed", "seconds"},
        server="crowded",
    ),
    Case("never_read", 5, "max_unsent_bytes", LIMITS.max_unsent_bytes + 64 * KIB, each("closed")),
    Case("never_read_answers", 5, "request_timeout_s", READ_AT_ONCE, each("closed"), server="impatient"),
    Case(
        "drip_head",
        20,
        "request_timeout_s",
        IMPATIENT.max_header_bytes,
        each("408", "closed"),
        server="impatient",
    ),
    Case(
        "drip_body",
        20,
        "request_timeout_s",
        IMPATIENT.max_body_bytes,
        each("408", "closed"),
        server="impatient",
    ),
    Case("drip_frame", 20, "ping_timeout_s", WATCHFUL.max_frame_bytes, each("closed"), server="watchful"),
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
        # A busy machine may never reach the limit, and sees no 429.
        lambda seen, _: 0 < seen["204"] <= MAX_PUBLISHES_PER_S * (seen["seconds"] + 1),
    ),
    Case("forgeries", 20, "max_connections", 64 * KIB, each("401")),
    Case("percent_signs", 5, "max_body_bytes", 2 * LIMITS.max_body_bytes + 2 * READ_AT_ONCE, each("401")),
    # Body, parameters and base string.
    Case("refused_batches", 5, "max_batch_bytes", 6 * LIMITS.max_batch_bytes, each("401")),
    Case("small_chunks", 5, "MAX_PIECES", LIMITS.max_body_bytes + 2 * READ_AT_ONCE, each("400", "closed")),
    Case("colons", 5, "max_header_bytes", READ_AT_ONCE, each("400")),
    Case(
        "pipeline", 5, "MAX_PIPELINED_REQUESTS", MAX_PIPELINED_REQUESTS * READ_AT_ONCE, each("429", "closed")
    ),
    Case("commands", 20, "max_commands_per_s", 2 * READ_AT_ONCE, at_most("TEXT", LIMITS.max_commands_per_s)),
    Case(
        "pings",
        20,
        "max_commands_per_s",
        2 * READ_AT_ONCE,
        at_most("PONG", LIMITS.max_commands_per_s, FRAMES_IN_A_ROW + PARSED_BYTES // len(frame(Opcode.PING))),
    ),
    Case(
        "nested_arrays",
        5,
        "MAX_SYNTAX",
        2 * MAX_QUEUED_COMMANDS * LIMITS.max_frame_bytes,
        at_most("TEXT", LIMITS.max_commands_per_s),
    ),
    Case(
        "resubscribe",
        AUDIENCE,
        "max_commands_per_s",
        64 * KIB,
        lambda seen, _: at_most("ok", LIMITS.max_commands_per_s)(seen, 1),
        is_on_stream=True,
    ),
    Case(
        "direct_messages",
        5,
        "max_direct_bytes_per_s",
        2 * LIMITS.max_frame_bytes + 2 * READ_AT_ONCE,
        direct_bytes,
        is_on_stream=True,
    ),
    Case("toggle_presence", AUDIENCE, "max_commands_per_s", 64 * KIB, toggles, is_on_stream=True),
    Case("ghosts", 5, "BROKEN_POLL_GRACE_S", 64 * KIB, lambda seen, _: seen["down"] > 0, is_on_stream=True),
    Case("fragments", 5, "max_frame_bytes", 2 * LIMITS.max_frame_bytes, each("CLOSE 1009", "closed")),
    Case(
        "lost_commands",
        5,
        "MAX_QUEUED_COMMANDS",
        MAX_QUEUED_COMMANDS * 4 * MAX_LINE_LENGTH + READ_AT_ONCE,
        lambda seen, clients: seen["lost"] >= LOST_COMMANDS * clients,
        server="crowded",
    ),
    Case(
        "lost_posts",
        5,
        "max_poll_bytes",
        3 * LIMITS.max_poll_bytes + 2 * READ_AT_ONCE,
        lambda seen, clients: seen["lost"] >= LOST_POSTS * clients,
        server="crowded",
    ),
    Case("nested_posts", 20, "MAX_SYNTAX", 3 * LIMITS.max_poll_bytes + 2 * READ_AT_ONCE, each("400")),
    Case("poll_again", 20, "max_long_polling_subscribers", 64 * KIB, each("200")),
    Case(
        "polls",
        20,
        "max_long_polling_subscribers",
        16 * KIB * LIMITS.max_long_polling_subscribers // 20,
        lambda seen, _: seen["200"] <= LIMITS.max_long_polling_subscribers and seen["503"] > 0,
        server="polled",
    ),
    Case("body", 5, "max_body_bytes", LIMITS.max_body_bytes + 2 * READ_AT_ONCE, each("413", "closed")),
    Case("head", 5, "max_header_bytes", LIMITS.max_header_bytes + 2 * READ_AT_ONCE, each("431", "closed")),
    Case(
        "trailers", 5, "max_header_bytes", LIMITS.max_header_bytes + 2 * READ_AT_ONCE, each("431", "closed")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_abuse_is_bounded_and_a_bystander_gets_its_messages(
    case: Case, request: pytest.FixtureRequest
) -> None:
    server: Serving = request.getfixturevalue(case.server)
    with Bystander(server) as bystander:
        idle = bystander.measure()
        files, before = server.files, server.memory("VmRSS")
        server.forget_peak()
        stream = bystander.stream if case.is_on_stream else None
        with abused(server, bystander, case.name, case.clients, stream=stream) as seen:
            beside = bystander.measure()
            assert server.files <= server.max_connections + FILES_BESIDES
        grown = server.memory("VmHWM") - before
        report(case.name, case.clients, case.limits, idle, beside, grown)
        assert case.is_bounded(seen, case.clients), seen
        assert grown <= case.clients * case.memory + UNRELATED
        wait_for_files(server, files, bystander)
        bystander.send()
    assert "Traceback" not in server.log


def test_thousands_of_connections_idle_and_one_too_many_is_refused(
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
        assert grown <= IDLE * 12 * KIB + UNRELATED
        wait_for_files(server, files, bystander)
        with Socket(server) as newcomer:
            assert newcomer.command("subscribe", 1, "x") == ["ack", 1, "ok"]
        assert "Traceback" not in server.log
