"""Several processes on one port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tambur import ConfigurationError, Tambur
from tambur.server import Config, serve
from tambur.subscriber import Subscriber
from tests.support.app import API_KEY, APP, APP_ID, SECRET
from tests.support.node_process import NodeProcess, read_metrics
from tests.support.redis_server import RedisServer

from ..support.ports import free_ports

COUNT = 2
TIMEOUT_S = 60


def children(pid: int) -> set[int]:
    """The processes that a process has started and that live."""
    with contextlib.suppress(FileNotFoundError):
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()))
    return set()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def connections(parent: NodeProcess) -> list[float | None]:
    """The metrics of each worker; ``None`` for one that does not answer."""
    found: list[float | None] = []
    for port in range(parent.console_port, parent.console_port + COUNT):
        try:
            found.append(read_metrics(port).get("tambur_connections"))
        except requests.ConnectionError:
            found.append(None)
    return found


@pytest.fixture
def parent(redis_server: RedisServer, tmp_path: Path) -> Iterator[NodeProcess]:
    process = NodeProcess(
        tmp_path,
        redis_server.url(2),
        "--workers",
        str(COUNT),
        console_port=free_ports(COUNT),
        more=f"[limits]\nshutdown_timeout_s = {TIMEOUT_S}\n",
    )
    with process.process:
        yield process
        process.process.kill()


def one_at_each(parent: NodeProcess, stack: contextlib.ExitStack, stream: str) -> list[Subscriber]:
    """Connect until every worker has a subscriber; the IDs name the worker."""
    subscribers: dict[str, Subscriber] = {}
    deadline = time.monotonic() + TIMEOUT_S
    while len(subscribers) < COUNT:
        assert time.monotonic() < deadline, f"only {len(subscribers)} workers were heard of"
        made = Subscriber(API_KEY, APP_ID, parent.url)
        if subscribers.setdefault(made.subscriber_id[:8], made) is made:
            stack.enter_context(made).subscribe(stream)
        else:
            made.close()
    return list(subscribers.values())


def test_all_workers_serve_as_one_and_one_that_dies_is_replaced(parent: NodeProcess, stream: str) -> None:
    pids = children(parent.process.pid)
    assert len(pids) == COUNT
    with contextlib.ExitStack() as stack, Tambur(API_KEY, APP_ID, SECRET, parent.url) as tambur:
        subscribers = one_at_each(parent, stack, stream)
        for i in range(10):
            tambur.publish(stream, str(i))
        for one in subscribers:
            assert [one.receive(60).text for _ in range(10)] == [str(i) for i in range(10)]
        deadline = time.monotonic() + TIMEOUT_S
        while connections(parent) != [1] * COUNT:  # until they have noticed that the others are closed
            assert time.monotonic() < deadline, connections(parent)
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        while len(left := children(parent.process.pid) - {victim}) < COUNT:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert left > pids - {victim}
        # The new one has the metrics of the one that died.
        while sorted(connections(parent), key=str) != [0, *[1] * (COUNT - 1)]:
            assert time.monotonic() < deadline, connections(parent)
            time.sleep(0.02)
    with contextlib.ExitStack() as stack:
        survivors = one_at_each(parent, stack, stream)
        parent.end(signal.SIGTERM)
        assert parent.process.returncode == 0
        assert not any(is_alive(pid) for pid in left)
        for one in survivors:
            with pytest.raises(ConnectionError) as caught:
                one.receive(60)
            assert getattr(caught.value, "code", None) == 1001


def test_no_worker_outlives_its_parent(parent: NodeProcess) -> None:
    parent.end(signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT_S
    host, _, port = parent.url.removeprefix("http://").partition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=TIMEOUT_S).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # it ended just then
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_port_that_others_share_is_not_shared_with_them(redis_server: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        config = Config((APP,), port=listener.getsockname()[1], broker=redis_server.url(), workers=2)
        with pytest.raises(ConfigurationError, match="Address already in use"):
            serve(config)


def test_each_worker_needs_a_port_for_its_metrics(redis_server: RedisServer) -> None:
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first + 1)):
        config = Config((APP,), port=0, broker=redis_server.url(), workers=2, console_port=first)
        with pytest.raises(ConfigurationError, match=f"console_port {first + 1}: Address already in use"):
            serve(config)


def test_processes_do_not_share_memory() -> None:
    with pytest.raises(
        ConfigurationError, match="workers must be 1, not 2, with the broker 'memory://': that is the memory"
    ):
        serve(Config((APP,), port=0, workers=2))
