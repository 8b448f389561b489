"""The view of operators on a server: its health and its metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
import requests

import tambur.server
from tambur import ConfigurationError, RejectedError, Tambur
from tambur.server import Config, Limits, Server, in_background
from tambur.server.listeners import FILES_BESIDES
from tambur.server.logs import Formatter
from tambur.server.memory import STREAM_BYTES, subscription_bytes
from tests.support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber
from tests.support.node_process import metrics_when, read_metrics
from tests.support.polling import Poller
from tests.support.redis_server import RedisServer

from ..support import documentation
from ..support.ports import free_port
from ..support.wire import (
    Answer,
    Listening,
    Socket,
    ask,
    connect,
    handshake,
    read_all,
    signed,
    wait_until_served,
)


def health(server: Listening) -> tuple[int, str]:
    answer = requests.get(f"{server.url}/health", timeout=60)
    return answer.status_code, answer.text


def test_a_healthy_server_says_so_under_any_name() -> None:
    with in_background(Config(apps=(APP,), port=0, public_hosts=("tambur.example.com",))) as server:
        assert health(server) == (200, "ok\n")
        assert requests.get(f"{server.url}/tambur.js", timeout=60).status_code == 421


def test_one_without_its_broker_says_why(tmp_path: Path, stream: str) -> None:
    redis = RedisServer(tmp_path)
    with in_background(Config(apps=(APP,), port=0, broker=redis.url())) as server, subscriber(server, stream):
        assert health(server) == (200, "ok\n")
        redis.end()
        with (
            Tambur(API_KEY, APP_ID, SECRET, server.url, max_retries=0) as tambur,
            pytest.raises(RejectedError),
        ):
            tambur.publish(stream, "x")  # it returns once the server knows
        assert health(server) == (503, "Redis cannot be reached\n")


def test_metrics_count_what_happens(stream: str) -> None:
    port = free_port()
    limits = Limits(max_unsent_bytes=1000)
    with in_background(Config(apps=(APP,), port=0, console_port=port, limits=limits)) as server:
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
            assert ask(server, handshake(f"/{API_KEY}/other")).status == 404
            assert tambur.users(stream) == []
            # Messages of a busy stream wait a moment for each other.
            found = metrics_when(port, lambda found: found["tambur_deliveries_total"] >= 6)
            assert found.pop("tambur_broker_seconds_sum") > 0
            assert found.pop("tambur_unsent_bytes") > 100
            subscribed = [stream, stream, f"{stream}2", f"{stream}3"]
            held = 3 * STREAM_BYTES + sum(map(subscription_bytes, subscribed))
            assert found.pop("tambur_held_bytes") == held
            assert 1 <= found.pop("tambur_tasks") < 10
            assert found == {
                "tambur_connections": 3,
                "tambur_subscriptions": 4,
                'tambur_publishes_total{status="204"}': 4,
                'tambur_publishes_total{status="401"}': 1,
                'tambur_queries_total{query="users",status="200"}': 1,
                'tambur_refused_total{reason="unknown_app"}': 1,
                'tambur_sessions_total{outcome="refused"}': 0,
                'tambur_sessions_total{outcome="resumed"}': 0,
                "tambur_incomplete_total": 0,
                "tambur_deliveries_total": 6,
                "tambur_slow_subscribers_total": 0,
                "tambur_shed_connections_total": 0,
                "tambur_broker_seconds_count": 4,
            }
            tambur.publish(f"{stream}3", "x" * 1000)
            found = metrics_when(port, lambda found: found["tambur_slow_subscribers_total"])
            assert (found["tambur_slow_subscribers_total"], found["tambur_connections"]) == (1, 2)
        documented = re.findall(r"^\| `(tambur\w+)", documentation.text("operations.md"), re.MULTILINE)
        assert {name.partition("{")[0] for name in found} - {"tambur_broker_seconds_sum"} == {
            name for name in documented if not name.startswith("tambur_webhook")
        }
    with pytest.raises(requests.ConnectionError):
        read_metrics(port)


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
        wait_until_served(server)  # once it has noticed that they are gone
        server.process.terminate()
        assert server.process.stderr is not None
        said = server.process.stderr.read()
    needed = Limits().max_connections + FILES_BESIDES
    assert f"max_connections=36 of=16384 open_files_allowed=100 open_files_needed={needed}" in said
    assert said.count("max_connections lowered") == 1


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"console_port {port}: Address already in use"):
            Server(Config(apps=(APP,), port=0, console_port=port))


LINE = re.compile(r'([^"=]+?)((?: \w+=(?:[^" =\\]+|"(?:[^"\\]|\\.)*"))*)')


def log_line(record: logging.LogRecord) -> tuple[str, dict[str, str]]:
    """Split a line of the log into its event and its facts."""
    found = LINE.fullmatch(record.getMessage())
    assert found is not None, record.getMessage()
    facts = re.findall(r' (\w+)=([^" =\\]+|"(?:[^"\\]|\\.)*")', found[2])
    return found[1], {name: json.loads(v) if v.startswith('"') else v for name, v in facts}


def test_every_line_of_the_log_is_documented() -> None:
    package = Path(tambur.server.__file__).parent
    source = "".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    logged = re.findall(r'logger\.\w+\(\s*"(.+?)"', source) + re.findall(
        r'\b(?:line|log_refusal|_refuse|_break_off)\(\s*"(.+?)"', source
    )
    assert len(logged) >= 15
    _, _, page = documentation.text("operations.md").partition("## Logs")
    assert set(logged) == set(re.findall(r"^\| `(.+?)` \| [A-Z]+ \|", page, re.MULTILINE))


FORGED = 'news\n2026-11-23T20:00:00.000Z INFO tambur.server: publish refused app="\u2028\x9b\\'


def test_log_lines_hold_facts_and_no_value_starts_a_new_line(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tambur.server"), subscriber(server) as one:
        for stream, secret in (
            ("room 1", "wrong"),
            (f"private:{one.subscriber_id}", "wrong"),
            ("a=b", "wrong"),
        ):
            with Tambur(API_KEY, APP_ID, secret, server.url) as stranger, pytest.raises(RejectedError):
                stranger.publish(stream, "x")
        for destination in (FORGED, f"private:{one.subscriber_id}\n", "x" * 1000):
            path = f"/app/{APP_ID}/stream/{quote(destination)}"
            answer = ask(server, signed(server, "x", "m", line=f"POST {path} HTTP/1.1"))
            assert answer.status == 400
        assert (
            ask(server, signed(server, "x", "m", line=f"POST /app/{quote(FORGED)}/stream/s HTTP/1.1")).status
            == 404
        )
    logged = [log_line(record) for record in caplog.records]
    assert {event for event, _ in logged} == {"publish refused"}
    assert [(facts["status"], facts.get("app"), facts.get("stream")) for _, facts in logged] == [
        ("401", APP_ID, "room 1"),
        ("401", APP_ID, "private:SUBSCRIBER_ID"),
        ("401", APP_ID, "a=b"),
        ("400", APP_ID, FORGED),
        ("400", APP_ID, "private:SUBSCRIBER_ID"),
        ("400", APP_ID, "x" * 300 + "..."),
        ("404", None, None),
    ]
    assert logged[0][1]["reason"].startswith("wrong signature; is the secret right")
    assert logged[4][1]["reason"].endswith("'SUBSCRIBER_ID\\n'")
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert one.subscriber_id not in caplog.text


def refused_streams(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The streams of refused publishes. The shared server may still log the end of an earlier subscriber."""
    lines = [log_line(record) for record in caplog.records]
    return [facts["stream"] for event, facts in lines if event == "publish refused"]


def test_no_line_of_the_log_holds_a_subscriber_id(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "tambur.server"), subscriber(server) as one:
        subscriber_id = one.subscriber_id
        for destination, logged in {
            f"auth:private:{subscriber_id}": "auth:private:SUBSCRIBER_ID",
            f" private:{subscriber_id[:-1]}": " private:SUBSCRIBER_ID",
            f"Private:{subscriber_id}": "Private:SUBSCRIBER_ID",
            f"e{subscriber_id.upper()}": "eSUBSCRIBER_ID",
            "x" * 280 + subscriber_id: "x" * 280 + "SUBSCRIBER_ID",
            f"private:{subscriber_id}": "private:SUBSCRIBER_ID",
        }.items():
            path = f"/app/{APP_ID}/stream/{quote(destination)}"
            ask(server, signed(server, "x", "m", line=f"POST {path} HTTP/1.1"))
            assert refused_streams(caplog)[-1] == logged
        for path in (f"/app/{subscriber_id}/stream/x", f"/app/{APP_ID}/private:{subscriber_id}"):
            ask(server, signed(server, "x", "m", line=f"POST {path} HTTP/1.1"))
        ask(server, signed(server, "x", "m", headers={"Host": f"{subscriber_id}:x"}))
        with publisher(server) as tambur:
            tambur.publish(f"private:{subscriber_id}", "x")
        assert one.receive(60).text == "x"
    private = [
        event
        for event, facts in map(log_line, caplog.records)
        if facts.get("stream") == "private:SUBSCRIBER_ID" and event != "publish refused"
    ]
    assert private == ["publication delivered", "publish accepted"]
    assert subscriber_id[:-1] not in caplog.text.lower()


def test_a_traceback_in_the_log_holds_no_subscriber_id() -> None:
    subscriber_id = "2f1b63e5-8c5c-8ddc-9d8e-d23d7b2e9e63"
    nothing: dict[str, str] = {}
    try:
        nothing[subscriber_id]
    except KeyError:
        record = logging.makeLogRecord({"name": "asyncio", "msg": "failed", "exc_info": sys.exc_info()})
    assert Formatter().format(record).endswith("KeyError: 'SUBSCRIBER_ID'")


def test_each_publish_and_its_receivers_are_logged_for_debugging(
    server: Server, tambur: Tambur, caplog: pytest.LogCaptureFixture, stream: str
) -> None:
    with caplog.at_level(logging.DEBUG, "tambur.server"), subscriber(server, stream) as one:
        with subscriber(server, stream):
            one.enable_auth(stream, tambur.generate_auth_token)
            tambur.publish(stream, "x")
            tambur.publish(f"auth:{stream}", "x")
            tambur.publish(f"direct:{stream}:alice", "x")
    app = {"app": APP_ID}
    lines = [log_line(record) for record in caplog.records]
    assert [(event, facts) for event, facts in lines if stream in facts["stream"]] == [
        ("publication delivered", app | {"stream": stream, "kind": "public", "subscribers": "2"}),
        ("publish accepted", app | {"stream": stream, "outcome": "delivered", "nodes": "1"}),
        ("publication delivered", app | {"stream": stream, "kind": "auth", "subscribers": "1"}),
        ("publish accepted", app | {"stream": f"auth:{stream}", "outcome": "delivered", "nodes": "1"}),
        (
            "publish accepted",
            app | {"stream": f"direct:{stream}:alice", "outcome": "delivered", "nodes": "0"},
        ),
    ]


def test_a_slow_subscriber_and_a_confused_one_are_logged(
    caplog: pytest.LogCaptureFixture, stream: str
) -> None:
    limits = Limits(max_unsent_bytes=1000)
    with (
        caplog.at_level(logging.INFO, "tambur.server"),
        in_background(Config(apps=(APP,), port=0, limits=limits)) as server,
        publisher(server) as tambur,
        Socket(server) as confused,
    ):
        slow = Poller(server)
        slow.command("subscribe", stream)
        tambur.publish(stream, "x" * 1000)
        for _ in range(10):
            confused.send_text(b"nonsense")
        assert confused.close_code() == 1008
    assert [log_line(record) for record in caplog.records] == [
        ("slow subscriber dropped", {"app": APP_ID, "transport": "longpoll", "max_unsent_bytes": "1000"}),
        ("subscriber closed", {"app": APP_ID, "reason": "10 malformed commands in a row"}),
    ]


def test_serve_logs_one_line_a_record_with_time_and_level() -> None:
    formatter = Formatter()
    try:
        int("two\nlines")
    except ValueError:
        record = logging.makeLogRecord(
            {"name": "asyncio", "levelno": 40, "levelname": "ERROR", "created": 1.5, "msecs": 500}
            | {"msg": "one\rtwo %s", "args": ("\x1b[2J",), "exc_info": sys.exc_info()}
        )
    line = formatter.format(record)
    assert line.startswith(
        r"1970-01-01T00:00:01.500Z ERROR asyncio: one\rtwo \u001b[2J\nTraceback (most recent call last):\n"
    )
    assert line.endswith(r"ValueError: invalid literal for int() with base 10: 'two\nlines'")
