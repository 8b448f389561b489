"""The servers that deliver, each started with the settings that its users would give it."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tambur import Tambur

from .peers import (
    HERE,
    NCHAN_MODULE,
    compiled,
    nginx_with_nchan,
    node_with,
    program,
    python_with,
)
from .processes import LOAD_CORE, SERVER_CORE, Process

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "bench"
SECRET = "wsbot"  # noqa: S105 - nobody else's

_START_TIMEOUT_S = 10


class Server(NamedTuple):
    """A server that runs.

    Attributes:
        process: its one process.
        port: where subscribers connect.
        options: for the load, how subscribers and publishers talk to it.
        request: makes the bytes of the publish of a message.
    """

    process: Process
    port: int
    options: Mapping[str, str]
    request: Callable[[str], bytes]


Starter = Callable[[], contextlib.AbstractContextManager[Server]]

MESSAGE_BYTES = 128


def message(number: int, size: int = MESSAGE_BYTES) -> str:
    """The message that the load recognises as the n-th."""
    return f"@{number:09}".ljust(size, ".")


def _post(path: str, port: int) -> Callable[[str], bytes]:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: text/plain\r\n"

    def request(text: str) -> bytes:
        return f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode()

    return request


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_listening(process: Process, port: int) -> None:
    # Foreign programs have no common way to say that they are ready.
    until = time.monotonic() + _START_TIMEOUT_S
    while process.is_running and time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


# The limit.


@contextlib.contextmanager
def limit() -> Iterator[Server]:
    with Process([compiled("limit")], core=SERVER_CORE) as process:
        port = int(process.read_line())
        yield Server(process, port, {}, _post("/", port))


# Ours.

_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from tambur.cli import main; sys.exit(main())"
_WITH_UVLOOP = "import sys, uvloop; from tambur.cli import main; sys.exit(main())"


@contextlib.contextmanager
def tambur(
    *,
    coalesce_window_ms: float | None = None,
    broker: str | None = None,
    workers: int | None = None,
    node_timeout_s: float | None = None,
    limits: Mapping[str, float] = types.MappingProxyType({}),
    uvloop: bool = False,
    is_traced: bool = False,
) -> Iterator[Server]:
    """``tambur serve``, with its defaults but for one app and what is given.

    Parameters:
        workers: ``None`` for one process on one core; otherwise they may use all cores.
        limits: of its configuration.
        uvloop: whether it runs on uvloop, which tambur[server] does not bring.
        is_traced: whether it is that of traced.py.
    """
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "tambur.toml")
        settings = {
            "coalesce_window_ms": coalesce_window_ms,
            "broker": broker,
            "workers": workers,
            "node_timeout_s": node_timeout_s,
        }
        tables = {
            "[server]": {name: value for name, value in settings.items() if value is not None},
            "[limits]": limits,
            "[[apps]]": {"api_key": API_KEY, "app_id": APP_ID, "secrets": [SECRET]},
        }
        # A JSON value of these is a TOML value, too.
        lines = [
            line
            for head, table in tables.items()
            for line in (head, *(f"{name} = {json.dumps(value)}" for name, value in table.items()))
        ]
        config.write_text("\n".join(lines), "utf-8")
        if uvloop:
            python_with("uvloop", "uvloop")
        code = ["-c", _WITH_UVLOOP if uvloop else _WITHOUT_UVLOOP]
        if is_traced:
            code = ["-m", "benchmarks.traced"]
        command = [sys.executable, *code, "serve", "--port", "0", "--config", str(config)]
        core = SERVER_CORE if workers is None else None
        with Process(command, core=core, is_quiet=True) as process:
            url = process.read_line().rpartition(" ")[2]
            port = int(url.rpartition(":")[2])
            options = {"path": f"/{API_KEY}/{APP_ID}", "steps": '?;t["subscribe",1,"news"];?;'}
            client = Tambur(API_KEY, APP_ID, SECRET, url)
            yield Server(process, port, options, lambda text: signed(client, text, int(time.time())))


def signed(client: Tambur, text: str, timestamp: int) -> bytes:
    """The bytes of a publish of ours."""
    prepared = client.build_request("news", text, timestamp, secrets.token_hex(16))
    lines = [f"POST {prepared.path_url} HTTP/1.1", f"Host: {client.api_host.removeprefix('http://')}"]
    lines += [f"{name}: {value}" for name, value in prepared.headers.items()]
    return ("\r\n".join(lines) + f"\r\n\r\n{prepared.body!s}").encode()


# What connects ours.


@contextlib.contextmanager
def redis() -> Iterator[tuple[Process, int]]:
    """A Redis that writes down what docs/how-to/redis.md advises; yields its port, too."""
    executable = program("redis-server", "redis-server")
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        options = {"port": port, "bind": "127.0.0.1", "dir": directory, "save": "", "loglevel": "warning"}
        options |= {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with Process([executable, *words], core=LOAD_CORE) as process:
            _wait_until_listening(process, port)
            yield process, port


# The peers.


@contextlib.contextmanager
def nchan() -> Iterator[Server]:
    nginx = nginx_with_nchan()
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "nginx.conf")
        config.write_text(
            f"load_module {NCHAN_MODULE};\n"
            "daemon off; master_process off; worker_rlimit_nofile 20000;\n"
            f"pid {directory}/pid; error_log {directory}/log crit;\n"
            "events { worker_connections 20000; }\n"
            f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {directory};\n"
            "client_body_buffer_size 64k;\n"
            f"server {{ listen 127.0.0.1:{port} backlog=2048;\n"
            "location = /publish { nchan_publisher; nchan_channel_id news; nchan_store_messages off; }\n"
            "location = /subscribe { nchan_subscriber websocket; nchan_channel_id news; }\n"
            "} }\n",
            "utf-8",
        )
        command = [nginx, "-p", directory, "-e", f"{directory}/log", "-c", str(config)]
        with Process(command, core=SERVER_CORE) as process:
            _wait_until_listening(process, port)
            yield Server(process, port, {"path": "/subscribe"}, _post("/publish", port))


@contextlib.contextmanager
def ws() -> Iterator[Server]:
    with Process([node_with("ws"), str(HERE / "peer_servers" / "ws.js")], core=SERVER_CORE) as process:
        port = int(process.read_line())
        yield Server(process, port, {}, _post("/", port))


_SOCKET_IO = {"path": "/socket.io/?EIO=4&transport=websocket", "steps": "?;t40;?;"}


@contextlib.contextmanager
def socket_io() -> Iterator[Server]:
    command = [node_with("socket.io"), str(HERE / "peer_servers" / "socketio.js")]
    with Process(command, core=SERVER_CORE) as process:
        port = int(process.read_line())
        yield Server(process, port, _SOCKET_IO, _post("/", port))


@contextlib.contextmanager
def python_socketio() -> Iterator[Server]:
    python = python_with("socketio, uvicorn, websockets", "python-socketio uvicorn[standard]")
    command = [python, "-m", "benchmarks.peer_servers.python_socketio"]
    with Process(command, core=SERVER_CORE) as process:
        port = int(process.read_line())
        yield Server(process, port, _SOCKET_IO, _post("/", port))


@contextlib.contextmanager
def websockets_broadcast() -> Iterator[Server]:
    python = python_with("websockets.asyncio.server", "websockets")
    command = [python, "-m", "benchmarks.peer_servers.broadcast"]
    with Process(command, core=SERVER_CORE) as process:
        port, publish_port = int(process.read_line()), int(process.read_line())
        options = {"steps": "?;", "publish-port": str(publish_port)}
        yield Server(process, port, options, _post("/", publish_port))


@contextlib.contextmanager
def mosquitto() -> Iterator[Server]:
    executable = program("mosquitto", "mosquitto")
    port, publish_port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "mosquitto.conf")
        config.write_text(
            f"listener {port} 127.0.0.1\nprotocol websockets\nlistener {publish_port} 127.0.0.1\n"
            "allow_anonymous true\npersistence false\nlog_type none\nset_tcp_nodelay true\nuser root\n"
            "max_queued_messages 0\n",
            "utf-8",
        )
        with Process([executable, "-c", str(config)], core=SERVER_CORE, is_quiet=True) as process:
            _wait_until_listening(process, publish_port)
            connect = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
            subscribe = b"\x82\x09\x00\x01\x00\x04news\x00"
            options = {
                "path": "/mqtt",
                "protocol": "mqtt",
                "steps": f"b{connect.hex()};?;b{subscribe.hex()};?;",
                "publish-port": str(publish_port),
                "first": connect.hex(),
                "answer": "20020000",
                "confirmation": "40020001",
            }
            yield Server(process, port, options, _mqtt_publish)


def _mqtt_publish(text: str) -> bytes:
    """A publish that is to be confirmed (quality of service 1)."""
    rest = b"\x00\x04news\x00\x01" + text.encode()
    size = b""
    left = len(rest)
    while True:
        left, digit = divmod(left, 128)
        size += bytes([digit | (0x80 if left else 0)])
        if not left:
            return b"\x32" + size + rest


@contextlib.contextmanager
def nats() -> Iterator[Server]:
    executable = program("nats-server", "nats-server")
    port, publish_port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "nats.conf")
        config.write_text(
            f'listen: "127.0.0.1:{publish_port}"\nwebsocket {{ listen: "127.0.0.1:{port}", no_tls: true }}\n',
            "utf-8",
        )
        with Process([executable, "-c", str(config)], core=SERVER_CORE, is_quiet=True) as process:
            _wait_until_listening(process, port)
            connect = b'CONNECT {"verbose":false}\r\n'
            subscribe = connect + b"SUB news 1\r\nPING\r\n"
            pong = b"PONG\r\n"
            options = {
                "steps": f"?;b{subscribe.hex()};?;",
                "publish-port": str(publish_port),
                "first": (connect + b"PING\r\n").hex(),
                "answer": pong.hex(),
                "confirmation": pong.hex(),
            }
            yield Server(process, port, options, _nats_publish)


def _nats_publish(text: str) -> bytes:
    """A publish and a question whether it has been read."""
    return f"PUB news {len(text)}\r\n{text}\r\nPING\r\n".encode()


LIMIT = "C, `epoll` and one `send` a message"
TAMBUR = "tambur"
UNCOALESCED = "tambur, `coalesce_window_ms = 0`"
UVLOOP = "tambur on uvloop"
UVLOOP_UNCOALESCED = "tambur on uvloop, `coalesce_window_ms = 0`"
NCHAN, WS, NATS = "nchan", "node `ws`", "NATS"

STARTERS: dict[str, Starter] = {
    LIMIT: limit,
    TAMBUR: tambur,
    UNCOALESCED: lambda: tambur(coalesce_window_ms=0),
    UVLOOP: lambda: tambur(uvloop=True),
    UVLOOP_UNCOALESCED: lambda: tambur(coalesce_window_ms=0, uvloop=True),
    NCHAN: nchan,
    WS: ws,
    "`websockets.broadcast`": websockets_broadcast,
    "socket.io": socket_io,
    "python-socketio": python_socketio,
    "Mosquitto": mosquitto,
    NATS: nats,
}
