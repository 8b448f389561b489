"""Two nodes behind nginx as docs/how-to/compose.yaml has them, and restarted one after another under load."""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tambur import Tambur, TamburError, cli
from tambur.cli.serve import run_serve
from tambur.server import Config
from tambur.subscriber import Subscriber
from tests.support.app import API_KEY, APP_ID, SECRET
from tests.support.node_process import NodeProcess
from tests.support.redis_server import RedisServer

from ..support import documentation
from ..support.nginx import nginx
from ..support.ports import free_port

COMPOSE = yaml.safe_load(documentation.text("compose.yaml"))
SERVICES = COMPOSE["services"]
NODES = ("node1", "node2")
TIMEOUT_S = 60
PAUSE_S = 0.01
ARRIVED = threading.Condition()


def test_the_compose_files_nodes_are_what_our_command_line_and_configuration_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new-app", "shop"]) == 0
    toml = tmp_path / "tambur.toml"
    toml.write_text(capsys.readouterr().out)
    for name in NODES:
        program, *words = shlex.split(SERVICES[name]["command"])
        arguments = cli._parser().parse_args(words)
        assert (program, arguments.run) == ("tambur", run_serve)
        assert f"./tambur.toml:{arguments.config}:ro" in SERVICES[name]["volumes"]
        host, port = arguments.broker.removeprefix("redis://").removesuffix("/0").split(":")
        assert (host in SERVICES, port) == (True, "6379")
        config = Config.from_toml(toml)
        assert not Config(config.apps, arguments.host, arguments.port, arguments.broker).is_loopback
        assert f"server {name}:{arguments.port} " in COMPOSE["configs"]["nginx"]["content"]
        assert f":{arguments.port}/health'" in SERVICES[name]["healthcheck"]["test"][-1]
        compile(SERVICES[name]["healthcheck"]["test"][-1], "healthcheck", "exec")


def test_the_compose_files_redis_keeps_what_it_is_given(tmp_path: Path) -> None:
    program, *options = shlex.split(SERVICES["redis"]["command"])
    assert program == "redis-server"
    redis = RedisServer(tmp_path, *options)
    told = documentation.text("redis.md")
    for option in ("appendonly", "appendfsync", "maxmemory-policy"):
        _, value = redis.cli("CONFIG", "GET", option).split()
        assert f"\n{option} {value}\n" in told
    redis.end()


class Cluster:
    """Attributes: ``url`` is nginx', ``nodes`` the processes behind it."""

    def __init__(self, redis: RedisServer, directory: Path) -> None:
        for name in NODES:
            (directory / name).mkdir()
        self.nodes = [NodeProcess(directory / name, redis.url(2)) for name in NODES]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def restart(self, index: int) -> None:
        node = self.nodes[index]
        node.end(signal.SIGTERM)
        assert node.process.returncode == 0
        node.start()

    @property
    def site(self) -> str:
        """The compose file's configuration of nginx, with addresses of this machine."""
        text = str(COMPOSE["configs"]["nginx"]["content"]).replace("$$", "$")
        for name, node in zip(NODES, self.nodes, strict=True):
            assert text.count(f"{name}:8080") == 1
            text = text.replace(f"{name}:8080", f"127.0.0.1:{node.port}")
        return text.replace("listen 80;", f"listen 127.0.0.1:{self.port};")


@pytest.fixture
def cluster(redis_server: RedisServer, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(redis_server, tmp_path)
    try:
        with nginx(tmp_path, made.site):
            yield made
    finally:
        for node in made.nodes:
            node.end(signal.SIGTERM)


class Publishers:
    """Threads that publish a hundred messages a second each, or fewer; each counts up."""

    def __init__(self, url: str, stream: str, count: int) -> None:
        self._stream = stream
        self._ended = threading.Event()
        self.published = [0] * count
        self.errors: list[TamburError] = []
        self._tambur = Tambur(API_KEY, APP_ID, SECRET, url)
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(count)]

    def _run(self, index: int) -> None:
        while not self._ended.wait(PAUSE_S):
            try:
                self._tambur.publish(self._stream, f"{index} {self.published[index]}")
            except TamburError as error:
                self.errors.append(error)
            self.published[index] += 1

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()
            self._tambur.close()


class User:
    """A subscriber with presence that reconnects, and its messages."""

    def __init__(self, url: str, stream: str, name: str, token: Callable[..., str]) -> None:
        self.subscriber = Subscriber(API_KEY, APP_ID, url, timeout=TIMEOUT_S, reconnect=True)
        self.first_id = self.subscriber.subscriber_id
        self.subscriber.subscribe(stream)
        self.subscriber.enable_presence(stream, name, token)
        self.received: list[tuple[int, int]] = []
        self.newest = -1
        """The newest message of the first publisher."""
        self.last = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)  # which a failure leaves behind
        self.thread.start()

    def _run(self) -> None:
        for message in self.subscriber:
            if message.text == "the last":
                self.last.set()
                return
            if message.kind == "public":
                publisher, number = map(int, message.text.split())
                with ARRIVED:
                    self.received.append((publisher, number))
                    if publisher == 0:
                        self.newest = number
                    ARRIVED.notify_all()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for messages."""
    with ARRIVED:
        assert ARRIVED.wait_for(holds, TIMEOUT_S)


def test_nodes_are_restarted_one_after_another_and_no_publish_fails(cluster: Cluster, stream: str) -> None:
    tambur = Tambur(API_KEY, APP_ID, SECRET, cluster.url)
    names = [f"user{i}" for i in range(4)]
    users = [User(cluster.url, stream, name, tambur.generate_presence_token) for name in names]
    publishers = Publishers(cluster.url, stream, 2)
    with publishers.running():
        wait_until(lambda: all(user.newest >= 0 for user in users))
        for index in range(len(NODES)):
            cluster.restart(index)
            # A subscriber is back once it receives new messages; earlier ones have then arrived.
            now = publishers.published[0] + 1
            for user in users:
                wait_until(lambda: user.newest > now)  # noqa: B023
    tambur.publish(stream, "the last")
    assert all(user.last.wait(TIMEOUT_S) for user in users)
    assert publishers.errors == []
    for user in users:
        # Each session continued on another node. No message was missed, doubled or out of order.
        assert user.subscriber.subscriber_id == user.first_id
        for index, published in enumerate(publishers.published):
            numbers = [number for publisher, number in user.received if publisher == index]
            assert numbers == list(range(numbers[0], published))
    with Subscriber(API_KEY, APP_ID, cluster.url, timeout=TIMEOUT_S) as watcher:
        watcher.subscribe(stream)
        watcher.enable_presence(stream, "watcher", tambur.generate_presence_token)
        there = [watcher.receive(TIMEOUT_S)[1:] for _ in names]
        assert sorted(there) == [("presence", "up", name) for name in names]
        users[0].subscriber.close()
        assert watcher.receive(TIMEOUT_S)[1:] == ("presence", "down", "user0")
    for user in users:
        user.thread.join()
        user.subscriber.close()
    tambur.close()
