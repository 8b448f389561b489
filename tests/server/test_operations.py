"""What those look at who run a server: its health, and its metrics."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from tambur import ConfigurationError, RejectedError, Tambur
from tambur.server import Config, Limits, Server, in_background
from tambur.server.app import FILES_BESIDES
from tests.conftest import API_KEY, APP, APP_ID, publisher, subscriber
from tests.redis_server import RedisServer

from .test_longpoll import Poller
from .wire import Answer, Listening, connect, free_port, read_all

DOCS = Path(__file__).parents[2] / "docs"


def health(server: Listening) -> tuple[int, str]:
    answer = requests.get(f"{server.url}/health", timeout=10)
    return answer.status_code, answer.text


def test_a_healthy_server_says_so_under_any_name() -> None:
    with in_background(Config(apps=(APP,), port=0, public_hosts=("tambur.example.com",))) as server:
        assert health(server) == (200, "ok\n")
        assert requests.get(f"{server.url}/tambur.js", timeout=10).status_code == 421


def test_one_without_its_broker_says_why(tmp_path: Path, stream: str) -> None:
    redis = RedisServer(tmp_path)
    with in_background(Config(apps=(APP,), port=0, broker=redis.url())) as server, subscriber(server, stream):
        assert health(server) == (200, "ok\n")
        redis.end()
        with publisher(server) as tambur, pytest.raises(RejectedError):
            tambur.publish(stream, "x")  # it returns once the server knows
        assert health(server) == (503, "Redis cannot be reached\n")


def metrics(port: int) -> dict[str, float]:
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    return {name: float(value) for name, value in re.findall(r"^(tambur\S+) (\S+)$", text, re.MULTILINE)}


def test_metrics_count_what_happens(stream: str) -> None:
    port = free_port()
    limits = Limits(max_unsent_bytes=1000)
    with in_background(Config(apps=(APP,), port=0, metrics_port=port, limits=limits)) as server:
        with (
            publisher(server) as tambur,
            subscriber(server, stream, f"{stream}2") as one,
            subscriber(server, stream) as two,
        ):
            two.enable_auth(stream, tambur.generate_auth_token)
            poller = Poller(server)
            poller.command("subscribe", f"{stream}3")
            tambur.publish(stream, "to two")
            tambur.publish(f"auth:{stream}", "to one")
            tambur.publish(f"private:{one.subscriber_id}", "to one")
            one.enable_direct(stream, "a", tambur.generate_direct_token)
            one.send_direct(stream, "a", "to one")
            tambur.publish(f"{stream}3", "x" * 100)
            with Tambur(API_KEY, APP_ID, "wrong", server.url) as stranger, pytest.raises(RejectedError):
                stranger.publish(stream, "x")
            found = metrics(port)
            seconds = found.pop("tambur_broker_seconds_sum")
            assert 0 < seconds < 10
            assert found.pop("tambur_unsent_bytes") > 100
            assert found == {
                "tambur_connections": 3,
                "tambur_subscriptions": 4,
                'tambur_publishes_total{status="204"}': 4,
                'tambur_publishes_total{status="401"}': 1,
                "tambur_deliveries_total": 6,
                "tambur_slow_subscribers_total": 0,
                "tambur_broker_seconds_count": 4,
            }
            tambur.publish(f"{stream}3", "x" * 1000)
            found = metrics(port)
            assert (found["tambur_slow_subscribers_total"], found["tambur_connections"]) == (1, 2)
        documented = re.findall(
            r"^\| `(tambur\w+)", (DOCS / "operations.md").read_text("utf-8"), re.MULTILINE
        )
        assert {name.partition("{")[0] for name in found} - {"tambur_broker_seconds_sum"} == set(documented)
    with pytest.raises(requests.ConnectionError):
        metrics(port)


class Serving(NamedTuple):
    """``tambur serve``."""

    url: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def serving_with_open_files(count: int) -> Iterator[Serving]:
    words = f"ulimit -Sn 70; ulimit -Hn {count}; exec {sys.executable} -m tambur serve --port 0"
    process = subprocess.Popen(
        ["bash", "-ec", words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            line = ""
            while "is listening on" not in line:
                line = process.stdout.readline()
                assert line
            yield Serving(line.split()[-1], process)
        finally:
            process.terminate()


def test_fewer_connections_are_served_where_few_files_may_be_open() -> None:
    allowed = 36
    with serving_with_open_files(FILES_BESIDES + allowed) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(allowed):
                stack.enter_context(connect(server))
            answer = Answer(read_all(stack.enter_context(connect(server))))
            assert answer.status == 503
            assert answer.body == b"Service Unavailable: 36 connections are open already\n"
        deadline = time.monotonic() + 10
        while health(server) != (200, "ok\n"):  # until it has noticed that they are gone
            assert time.monotonic() < deadline
        server.process.terminate()
        assert server.process.stderr is not None
        said = server.process.stderr.read()
    needed = Limits().max_connections + FILES_BESIDES
    assert f"max_connections is 36 instead of 16384: that would need {needed} open files" in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"metrics_port {port}: Address already in use"):
            Server(Config(apps=(APP,), port=0, metrics_port=port))
