"""Nodes, Redis and the network fail in turn, under load: nothing is lost, doubled, out of order or left behind.

Three nodes are processes of their own, each with a TCP proxy before Redis; another proxy stands before all of
them, for publishers and for some of the subscribers. Redis keeps what it is given (``appendfsync always``). The rules are those of
:mod:`tests.support.ledger`, and hold for all publishes, whatever failed while they were made: that one returned ``True`` says
that Redis has it, and a node that lost its link, or Redis its connections, replays what it missed. Then the
presence that every subscriber received is right, and no node has a connection, subscription, task or file too many.

``TAMBUR_FAULTS_S`` says for how many seconds faults follow each other, once through all of them if it is not set;
``TAMBUR_FAULTS_SEED`` in which order; ``TAMBUR_FAULTS_PAUSE_S`` how long each of the four publishers pauses after a
publish. ``pytest -s`` shows the counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import requests

from tests.support.app import API_KEY, APP_ID
from tests.support.ledger import Ledger
from tests.support.node_process import NodeProcess, read_metrics
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.traffic import ROOM, Attempts, Publisher, Receiver

from ..support.ports import free_port

DURATION_S = float(os.environ.get("TAMBUR_FAULTS_S", "0"))
PAUSE_S = float(os.environ.get("TAMBUR_FAULTS_PAUSE_S", "0.03"))
SEED = int(os.environ.get("TAMBUR_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
NODES = 3
NODE_TIMEOUT_S = 8.0
"""Nodes notice each other's end in an eighth of it, and have all of it to find a Redis again that was killed."""

RECOVERY_TIMEOUT_S = 120.0
STREAMS = tuple(f"stream-{i}" for i in range(4))


class LinkedNode:
    """A process with its own link to Redis, and its open files without clients."""

    def __init__(self, directory: Path, redis: RedisServer, stack: contextlib.ExitStack) -> None:
        directory.mkdir()
        self.link = stack.enter_context(TcpProxy(redis.port))
        self.process = NodeProcess(
            directory,
            f"redis://127.0.0.1:{self.link.port}",
            node_timeout_s=NODE_TIMEOUT_S,
            console_port=free_port(),
        )
        stack.callback(self.process.end, signal.SIGKILL)
        requests.get(f"{self.process.url}/health", timeout=RECOVERY_TIMEOUT_S).raise_for_status()
        self.idle = self.open()

    def open(self) -> dict[str, float]:
        """Its open files at the moment."""
        metrics = read_metrics(self.process.console_port)
        names = ("connections", "subscriptions", "unsent_bytes", "tasks")
        return {"files": self.process.files()} | {name: metrics[f"tambur_{name}"] for name in names}


class Cluster:
    """Everything that can fail, and how it does."""

    def __init__(
        self, directory: Path, stack: contextlib.ExitStack, chance: random.Random, *redis_options: str
    ) -> None:
        self._chance = chance
        self._directory = directory
        self.redis = RedisServer(directory, *redis_options)
        stack.callback(lambda: self.redis.end(signal.SIGKILL))
        self.nodes = [LinkedNode(directory / str(i), self.redis, stack) for i in range(NODES)]
        self.front = stack.enter_context(TcpProxy(*(node.process.port for node in self.nodes)))
        self.url = f"http://127.0.0.1:{self.front.port}"

    def settle(self) -> None:
        """Wait until others know of a killed node: if Redis was killed then, nobody could say what that node knew."""
        until_equal(self.redis.linked, NODES)

    def has_no_more_than(self, receivers: list[Receiver]) -> None:
        """Wait until the nodes and Redis hold only the state for these receivers."""
        streams = {stream for receiver in receivers for stream in receiver.streams}
        subscriptions = sum(len(receiver.streams) for receiver in receivers)

        def nodes() -> dict[str, float]:
            """The files of all nodes beyond those without clients, and beyond one for each connection."""
            more: Counter[str] = Counter()
            for node in self.nodes:
                found = node.open()
                more.update({name: int(found[name] - node.idle[name]) for name in found})
                more["files"] -= int(found["connections"])
            return dict(more)

        until_equal(
            nodes,
            {
                "files": 0,
                "tasks": 0,
                "connections": len(receivers),
                "subscriptions": subscriptions,
                "unsent_bytes": 0,
            },
        )
        cli = self.redis.cli
        # One of them is redis-cli itself; each node has two, and a channel of its own; all nodes share one.
        until_equal(lambda: len(cli("CLIENT", "LIST").splitlines()), 2 * NODES + 1)
        until_equal(lambda: len(cli("PUBSUB", "CHANNELS").splitlines()), NODES + 1 + len(streams))
        until_equal(lambda: cli("ZCARD", "tambur:0:leases"), str(NODES))
        until_equal(lambda: cli("HLEN", "tambur:0:links"), str(NODES))
        # The users of a lost connection stay for a while.
        users = [receiver.user_id for receiver in receivers if receiver.user_id is not None]
        until_equal(
            lambda: sum(int(cli("SCARD", key)) for key in cli("KEYS", "tambur:0:node:*").split()), len(users)
        )
        present = f"tambur:0:present:{API_KEY}/{APP_ID}:{ROOM}"
        until_equal(lambda: sorted(cli("HKEYS", present).split()), sorted({*users}))

    @property
    def faults(self) -> dict[str, Callable[[], None]]:
        return {
            "node killed": self._kill_node,
            "node paused": self._pause_node,
            "Redis ended": lambda: self._restart_redis(signal.SIGTERM),
            "Redis killed": lambda: self._restart_redis(signal.SIGKILL),
            "Redis paused": self._pause_redis,
            "link dropped": lambda: self._drop(self._node().link),
            "link delayed": lambda: self._delay(self._node().link, self._chance.choice([0.3, 3.0])),
            "link truncated": lambda: self._truncate(self._node().link),
            "clients dropped": lambda: self._drop(self.front),
            "clients delayed": lambda: self._delay(self.front, 0.3),
            "clients truncated": lambda: self._truncate(self.front),
        }

    @property
    def losses(self) -> dict[str, Callable[[], None]]:
        """Faults in which Redis loses its newest messages."""
        return {
            "Redis restored from a copy": self._restore_redis,
            "failed over to a replica": self._fail_over,
            "Redis emptied": self._empty_redis,
        }

    def _node(self) -> LinkedNode:
        return self._chance.choice(self.nodes)

    def _last(self, least_s: float, most_s: float) -> None:
        """Let a fault last."""
        time.sleep(self._chance.uniform(least_s, most_s))

    def _kill_node(self) -> None:
        process = self._node().process
        process.end(signal.SIGKILL)
        self._last(0, 0.5)
        process.start()

    def _pause_node(self) -> None:
        with self._node().process.paused():
            self._last(1, 2)

    def _restart_redis(self, number: signal.Signals) -> None:
        self.redis.end(number)
        self._last(0, 1)
        self.redis.start()

    def _restore_redis(self) -> None:
        self.redis.cli("SAVE")
        self._last(0.3, 1)  # messages that the copy lacks
        self._restart_redis(signal.SIGKILL)

    def _fail_over(self) -> None:
        directory = self._directory / f"redis-{self.redis.port}"
        directory.mkdir()
        replica = RedisServer(directory, "--repl-diskless-sync-delay", "0")
        replica.cli("REPLICAOF", "127.0.0.1", str(self.redis.port))
        until_equal(lambda: "master_link_status:up" in replica.cli("INFO", "replication"), expected=True)
        self._last(0.3, 1)
        replica.cli("REPLICAOF", "NO", "ONE")
        self._last(0.3, 1)  # messages that the replica lacks
        self.redis.end(signal.SIGKILL)
        self.redis = replica
        for node in self.nodes:
            node.link.redirect(replica.port)

    def _empty_redis(self) -> None:
        self.redis.end(signal.SIGKILL)
        (self.redis.directory / "dump.rdb").unlink(missing_ok=True)
        self.redis.start()

    def _pause_redis(self) -> None:
        with self.redis.paused():
            self._last(2, 4)

    def _drop(self, proxy: TcpProxy) -> None:
        proxy.refuse(True)
        assert proxy.drop()
        self._last(0, 1)
        proxy.refuse(False)

    def _delay(self, proxy: TcpProxy, delay_s: float) -> None:
        proxy.delay(delay_s)
        self._last(1, 2)
        proxy.delay(0)

    def _truncate(self, proxy: TcpProxy) -> None:
        assert proxy.truncate()


class Traffic:
    """The publishers and receivers of a cluster."""

    def __init__(self, cluster: Cluster, *, max_retries: int = 6) -> None:
        self.ledger = Ledger()
        ledger, front, direct = self.ledger, cluster.url, [node.process.url for node in cluster.nodes]
        self.receivers = [
            *(
                Receiver(ledger, f"at-{i}", url, *STREAMS, user_id=f"user-{i}")
                for i, url in enumerate(direct)
            ),
            *(
                Receiver(ledger, f"twin-{i}", url, *STREAMS, user_id="twin")
                for i, url in enumerate(direct[:2])
            ),
            *(Receiver(ledger, f"guest-{i}", front, *STREAMS, user_id=f"guest-{i}") for i in range(2)),
            *(Receiver(ledger, f"of-{stream}", front, stream, reconnect=True) for stream in STREAMS),
        ]
        self.publishers = [
            Publisher(ledger, STREAMS[0], front, pause_s=PAUSE_S, max_retries=0, timeout=1.0),
            *(
                Publisher(ledger, stream, front, pause_s=PAUSE_S, max_retries=max_retries)
                for stream in STREAMS[1:]
            ),
        ]

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        for receiver in self.receivers:
            receiver.start()
        try:
            self.until(lambda: len(self.ledger.epochs) == len(self.receivers))
            for publisher in self.publishers:
                publisher.start()
            try:
                yield
            finally:
                self.stop_publishing()
        finally:
            for receiver in self.receivers:
                receiver.end()
            for receiver in self.receivers:
                receiver.join()

    def stop_publishing(self) -> None:
        for publisher in self.publishers:
            publisher.stopped.set()
        for publisher in self.publishers:
            publisher.join()

    def until(self, holds: Callable[[], bool]) -> None:
        with self.ledger.changed:
            assert self.ledger.changed.wait_for(holds, RECOVERY_TIMEOUT_S), self.state()

    def recover(self) -> None:
        """Wait until every receiver has a message published from now on, and the right presence."""
        with self.ledger.changed:
            numbers = {stream: self.ledger.begun[stream] + 1 for stream in STREAMS}
        self.until(lambda: self.ledger.have_all(numbers) and self.pictures_are_right())

    def finish(self) -> None:
        """Wait until every receiver has the last message of each stream, and the right presence."""
        self.until(lambda: self.ledger.have_all(self.ledger.begun) and self.pictures_are_right())

    def pictures_are_right(self) -> bool:
        users = {receiver.user_id for receiver in self.receivers} - {None}
        return all(r.picture == users - {r.user_id} for r in self.receivers if r.user_id is not None)

    def state(self) -> str:
        received = {
            name: {stream: max(numbers, default=0) for stream, numbers in epochs[-1].received.items()}
            for name, epochs in self.ledger.epochs.items()
        }
        pictures = {receiver.name: sorted(receiver.picture) for receiver in self.receivers}
        return f"seed {SEED}: {dict(self.ledger.begun)} were published, {received} received, {pictures} seen"


def until_equal(read: Callable[[], object], expected: object) -> None:
    deadline = time.monotonic() + RECOVERY_TIMEOUT_S
    while (found := read()) != expected:
        assert time.monotonic() < deadline, f"{found} instead of {expected}"
        time.sleep(0.05)


def inflict(
    faults: Mapping[str, Callable[[], None]], cluster: Cluster, traffic: Traffic, chance: random.Random
) -> Counter[str]:
    """Inflict each fault once, in any order; return their names."""
    for name, fault in chance.sample(sorted(faults.items()), len(faults)):
        started = time.monotonic()
        fault()
        traffic.recover()
        cluster.settle()
        print(f"{name}: {time.monotonic() - started:.1f} s")  # noqa: T201
    return Counter(faults.keys())


def test_nothing_is_lost_doubled_or_left_behind_whatever_fails(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    happened: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        attempts = stack.enter_context(Attempts().listening())
        cluster = Cluster(tmp_path, stack, chance, "--appendonly", "yes", "--appendfsync", "always")
        traffic = Traffic(cluster)
        deadline = time.monotonic() + DURATION_S
        with traffic.flowing():
            while not happened or time.monotonic() < deadline:
                happened += inflict(cluster.faults, cluster, traffic, chance)
            traffic.stop_publishing()
            traffic.finish()
            counts = {
                "seed": SEED,
                **traffic.ledger.counts(),
                "retries": attempts.retries,
                "faults": dict(happened),
            }
            print(json.dumps(counts, indent=1))  # noqa: T201
            cluster.has_no_more_than(traffic.receivers)
            assert not traffic.ledger.violations(), "\n".join(traffic.ledger.violations())
            assert [said for receiver in traffic.receivers for said in receiver.contradictions] == []
            # Redis keeps everything, so no session that resumes may miss a message.
            assert sum(receiver.told for receiver in traffic.receivers) == 0
        cluster.has_no_more_than([])
        for node in cluster.nodes:
            assert "Traceback" not in node.process.log
            # Otherwise all subscribers were closed, which would excuse any missing message.
            assert "subscribers missed messages" not in node.process.log


def test_subscribers_learn_that_redis_lost_messages(tmp_path: Path) -> None:
    """A resumed session that lacks a message has received ``complete: false``; other connections have ended."""
    chance = random.Random(SEED)
    happened: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path, stack, chance)
        # Redis loses claims, too, so a retry could be delivered twice.
        traffic = Traffic(cluster, max_retries=0)
        deadline = time.monotonic() + DURATION_S
        with traffic.flowing():
            while not happened or time.monotonic() < deadline:
                dropped = {"clients dropped": cluster.faults["clients dropped"]}
                happened += inflict(cluster.losses | dropped, cluster, traffic, chance)
            traffic.stop_publishing()
            traffic.finish()
        told = sum(receiver.told for receiver in traffic.receivers)
        counts = {"seed": SEED, **traffic.ledger.counts(), "told": told, "faults": dict(happened)}
        print(json.dumps(counts, indent=1))  # noqa: T201
        assert not traffic.ledger.violations(), "\n".join(traffic.ledger.violations())
        assert told >= len(cluster.losses) * happened["clients dropped"]
        for node in cluster.nodes:
            assert "Traceback" not in node.process.log
