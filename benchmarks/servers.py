"""The servers that deliver, each started with the settings that its users would give it."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tambur import Tambur

from .peers import HERE, NCHAN_MODULE, compiled, nginx_with_nchan, node_with, program, python_with
from .processes import LOAD_CORE, SERVER_CORE, Process

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "bench"
SECRET = "wsbot"  # noqa: S105 - nobody else's

_START_TIMEOUT_S = 60
_REDIS_ATTEMPTS = 5


class Server(NamedTuple):
    """A server that runs.

    Attributes:
        process: its one process.
        port: where subscribers connect.
        options: for the load, how subscribers and publishers talk to it.
        request: makes the bytes of the publish of a message.
        url: with its app and credentials, of a Tambur server.
        redis: the process of its Redis, if it has one.
    """

    process: Process
    port: int
    options: Mapping[str, str]
    request: Callable[[str], bytes]
    url: str = ""
    redis: Process | None = None


Starter = Callable[[], contextlib.AbstractContextManager[Server]]

MESSAGE_BYTES = 128


def message(number: int) -> str:
    """The n-th message, as the load recognises it."""
    return f"@{number:09}".ljust(MESSAGE_BYTES, ".")


def stream(number: int) -> str:
    """The n-th stream. The first one is enough for most."""
    return f"news-{number}" if number else "news"


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


@contextlib.contextmanager
def limit() -> Iterator[Server]:
    with Process([compiled("limit")], core=SERVER_CORE) as process:
        port = int(process.read_line())
        yield Server(process, port, {}, _post("/", port))


_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from tambur.cli import main; sys.exit(main())"
_WITH_UVLOOP = "import sys, uvloop; from tambur.cli import main; sys.exit(main())"


@contextlib.contextmanager
def tambur(
    *,
    uvloop: bool = False,
    is_extended: bool = False,
    limits: Mapping[str, float] = MappingProxyType({}),
    streams: int = 1,
    **settings: Any,
) -> Iterator[Server]:
    """``tambur serve`` with one app and, apart from the arguments, its defaults.

    Parameters:
        uvloop: whether it runs on uvloop, which tambur[server] does not install.
        is_extended: whether the load's subscribers extend their connections.
        limits: settings of ``[limits]``.
        streams: to how many streams the messages go in turn.
        settings: of ``[server]``. With ``workers`` the processes may use all cores, otherwise there is one on one core.
    """
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "tambur.toml")
        app = {"api_key": API_KEY, "app_id": APP_ID, "secrets": [SECRET]}
        lines = []
        for title, values in {"[server]": settings, "[limits]": limits, "[[apps]]": app}.items():
            # The JSON form of these values is also their TOML form.
            lines += [title, *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        config.write_text("\n".join(lines), "utf-8")
        if uvloop:
            python_with("uvloop", "uvloop")
        code = ["-c", _WITH_UVLOOP if uvloop else _WITHOUT_UVLOOP]
        command = [sys.executable, *code, "serve", "--port", "0", "--config", str(config)]
        core = None if "workers" in settings else SERVER_CORE
        with Process(command, core=core, is_quiet=True) as process:
            url = process.read_line().rpartition(" ")[2]
            port = int(url.rpartition(":")[2])
            hello = 't["hello",1,{}];?;' if is_extended else ""
            options = {"path": f"/{API_KEY}/{APP_ID}", "steps": f'?;{hello}t["subscribe",2,"news"];?;'}
            client = Tambur(API_KEY, APP_ID, SECRET, url)

            def request(text: str) -> bytes:
                name = stream(int(text[1:10]) % streams)
                prepared = client.build_request(name, text, int(time.time()), secrets.token_hex(16))
                host = client.api_host.removeprefix("http://")
                lines = [f"POST {prepared.path_url} HTTP/1.1", f"Host: {host}"]
                lines += [f"{name}: {value}" for name, value in prepared.headers.items()]
                return ("\r\n".join(lines) + f"\r\n\r\n{prepared.body!s}").encode()

            app_url = f"http://{API_KEY}:{SECRET}@127.0.0.1:{port}/app/{APP_ID}"
            yield Server(process, port, options, request, app_url)


@contextlib.contextmanager
def redis() -> Iterator[tuple[Process, int]]:
    """A Redis with the settings of docs/how-to/redis.md, and its port."""
    executable = program("redis-server", "redis-server")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        options = {"bind": "127.0.0.1", "dir": directory, "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        for _ in range(_REDIS_ATTEMPTS):
            port = _free_port()
            command = [executable, "--port", str(port), *words]
            process = stack.enter_context(Process(command, core=LOAD_CORE))
            if _accepts_connections(process):
                yield process, port
                return
        raise RuntimeError("Redis does not start")


def _accepts_connections(redis: Process) -> bool:
    """Wait until Redis says so; it ends if another program has taken its port."""
    try:
        while "Ready to accept connections" not in redis.read_line():
            pass
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def over_redis(**options: Any) -> Iterator[Server]:
    """The same over a fresh Redis."""
    with redis() as (process, port), tambur(broker=f"redis://127.0.0.1:{port}", **options) as server:
        yield server._replace(redis=process)


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


_SOCKET_IO = {"path": "/socket.io/?EIO=4&transport=websocket", "steps": "?;t40;?;"}


@contextlib.contextmanager
def _peer(command: Callable[[], list[str]], options: Mapping[str, str]) -> Iterator[Server]:
    """A server of ``peer_servers``: it prints its port."""
    with Process(command(), core=SERVER_CORE) as process:
        port = int(process.read_line())
        yield Server(process, port, options, _post("/", port))


def _node(module: str) -> list[str]:
    return [node_with(module), str(HERE / "peer_servers" / "broadcast.js"), module]


def _python_socketio() -> list[str]:
    python = python_with("socketio, uvicorn, websockets", "python-socketio uvicorn[standard]")
    return [python, "-m", "benchmarks.peer_servers.python_socketio"]


LIMIT = "C, `epoll` and one `send` a message"
TAMBUR = "tambur"
UNCOALESCED = "tambur, `coalesce_window_ms = 0`"
UVLOOP = "tambur on uvloop"
NCHAN = "nchan"

STARTERS: dict[str, Starter] = {
    LIMIT: limit,
    TAMBUR: tambur,
    UNCOALESCED: lambda: tambur(coalesce_window_ms=0),
    UVLOOP: lambda: tambur(uvloop=True),
    NCHAN: nchan,
    "node `ws`": lambda: _peer(lambda: _node("ws"), {}),
    "socket.io": lambda: _peer(lambda: _node("socket.io"), _SOCKET_IO),
    "python-socketio": lambda: _peer(_python_socketio, _SOCKET_IO),
}

# Servers and clusters that accept publishes.
ACCEPTING: dict[str, Starter] = {
    TAMBUR: tambur,
    "tambur, `history_messages = 0`": lambda: tambur(limits={"history_messages": 0}),
    UVLOOP: STARTERS[UVLOOP],
    "tambur over Redis": over_redis,
    "two nodes over Redis": lambda: over_redis(workers=2),
    NCHAN: nchan,
}
