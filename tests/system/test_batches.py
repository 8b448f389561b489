"""Batches while nodes, Redis and connections fail in the middle of them: every message arrives exactly once.

``TAMBUR_BATCHES`` says how many batches of 1,000 messages there are; two for each fault if it is not set. ``pytest -s``
shows how many attempts they took.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tambur import Tambur
from tambur.subscriber import Subscriber
from tests.support.app import API_KEY, APP_ID, SECRET
from tests.support.node_process import NodeProcess
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

TIMEOUT_S = 120.0
NODE_TIMEOUT_S = 12.0
"""Nodes notice each other's end in an eighth of it, and have all of it to find a Redis again that was killed."""

MESSAGES = 1000
STREAMS = tuple(f"stream-{i}" for i in range(10))
END = "end"


class Watcher:
    """A subscriber that keeps what it receives, in the order of each stream."""

    def __init__(self, node: NodeProcess) -> None:
        self.received: dict[str, list[str]] = {stream: [] for stream in STREAMS}
        self._seen: set[str] = set()
        self._arrived = threading.Condition()
        self._subscriber = Subscriber(API_KEY, APP_ID, node.url, timeout=TIMEOUT_S, reconnect=True)
        for stream in STREAMS:
            self._subscriber.subscribe(stream)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._subscriber:
            for message in self._subscriber:
                with self._arrived:
                    if message.text == END:
                        return
                    self.received[message.stream].append(message.text)
                    self._seen.add(message.text)
                    self._arrived.notify_all()

    def wait_for(self, text: str) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: text in self._seen, TIMEOUT_S)

    def join(self) -> None:
        """Wait for :data:`END`."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Cluster:
    """Two nodes that take batches, over slow links to Redis, and one that the receiver is connected to."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.redis = RedisServer(directory, "--appendonly", "yes", "--appendfsync", "always")
        stack.callback(lambda: self.redis.end(signal.SIGKILL))
        link = stack.enter_context(TcpProxy(self.redis.port))
        link.delay(0.005)
        self._nodes = {}
        for name, port in (("one", link.port), ("other", link.port), ("watching", self.redis.port)):
            (directory / name).mkdir()
            node = NodeProcess(directory / name, f"redis://127.0.0.1:{port}", node_timeout_s=NODE_TIMEOUT_S)
            stack.callback(node.end, signal.SIGKILL)
            self._nodes[node.port] = node
        *publishing, self.watching = self._nodes.values()
        self.front = stack.enter_context(TcpProxy(*(node.port for node in publishing)))

    def settle(self) -> None:
        """Wait until others know of a killed node: if Redis was killed then, nobody could say what that node knew."""
        until(lambda: self.redis.linked() == len(self._nodes))

    def nothing(self) -> None:
        pass

    def cut_connection(self) -> None:
        self.front.drop()

    def kill_node(self) -> None:
        """Kill the node that the publisher is connected to."""
        for _, port in self.front.connections[:1]:
            self._nodes[port].end(signal.SIGKILL)
            self._nodes[port].start()

    def pause_redis(self) -> None:
        """Pause Redis until the nodes miss it."""
        before = self.watching.log.count("Redis cannot be reached")
        with self.redis.paused():
            until(lambda: self.watching.log.count("Redis cannot be reached") > before)

    def kill_redis(self) -> None:
        """Redis keeps its data."""
        self.redis.end(signal.SIGKILL)
        self.redis.start()


FAULTS: tuple[Callable[[Cluster], None], ...] = (
    Cluster.nothing, Cluster.cut_connection, Cluster.kill_node, Cluster.pause_redis, Cluster.kill_redis,
)  # fmt: skip
BATCHES = int(os.environ.get("TAMBUR_BATCHES", str(2 * len(FAULTS))))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def test_every_message_of_a_batch_arrives_once_whatever_fails_in_the_middle(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tambur")
    receiver = Watcher(cluster.watching)
    url = f"127.0.0.1:{cluster.front.port}"
    expected: dict[str, list[str]] = {stream: [] for stream in STREAMS}
    attempts: Counter[str] = Counter()
    with Tambur(API_KEY, APP_ID, SECRET, url, max_retries=30) as tambur, ThreadPoolExecutor(1) as executor:
        for number in range(BATCHES):
            pairs = [(STREAMS[i % len(STREAMS)], f"{number}-{i}") for i in range(MESSAGES)]
            for stream, text in pairs:
                expected[stream].append(text)
            publishing = executor.submit(tambur.publish_many, pairs)
            receiver.wait_for(f"{number}-0")  # by then, more than nine tenths have not been published
            fault = FAULTS[number % len(FAULTS)]
            fault(cluster)
            assert publishing.result(TIMEOUT_S) == [True] * MESSAGES, fault.__name__
            (found,) = re.findall(r"publish of 1000 messages: .* attempts: (\d+)", caplog.text)
            attempts[fault.__name__] += int(found)
            caplog.clear()
            cluster.settle()
        assert tambur.publish(STREAMS[0], END) is True
    receiver.join()
    print(f"\n{BATCHES} batches, attempts: {dict(attempts)}")  # noqa: T201
    assert receiver.received == expected
    assert attempts.total() > BATCHES, "no batch was interrupted"
