"""A real Redis on its own port, which tests stop, kill, pause and restart."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .ports import free_port

TIMEOUT_S = 60


class RedisServer:
    """Listening once the constructor returns.

    Parameters:
        directory: where it keeps its data and its log.
        options: further arguments of its command line.
        port_option: the name of the option for its port.
        configuration: the text of its configuration file; ``None`` for none.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        port_option: str = "--port",
        configuration: str | None = None,
    ) -> None:
        self.directory = directory
        self._file = ["--save", ""]
        if configuration is not None:
            path = directory / "redis.conf"
            path.write_text(configuration)
            self._file = [str(path)]
        self._options = options if port_option == "--port" else (*options, "--port", "0")
        self._port_option = port_option
        self._process: subprocess.Popen[str] | None = None
        self.port = free_port()
        self.start()

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, or start again on the same port."""
        self._process = subprocess.Popen(
            [
                *("redis-server", *self._file, self._port_option, str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.directory), *self._options),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line or "+monitor master" in line:
                return
        self.end(signal.SIGKILL)
        raise AssertionError("".join(said))

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; ``start`` loads the data that it has saved by then."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.communicate(timeout=TIMEOUT_S)
            self._process = None

    def leased(self, database: int) -> set[str]:
        """The nodes that have a lease."""
        return set(self.cli("ZRANGE", f"tambur:{database}:leases", "0", "-1", database=database).split())

    def linked(self, database: int = 0) -> int:
        """How many nodes could still publish: not those that stopped, or that another node has noticed to be dead."""
        links = self.cli("HVALS", f"tambur:{database}:links", database=database).split()
        return len(links) - links.count("0")

    def end_leases(self, database: int, nodes: set[str]) -> None:
        """End the leases of nodes, so that no test waits for that or comes too late."""
        for node in nodes:
            self.cli("ZADD", f"tambur:{database}:leases", "XX", "1", node, database=database)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Its sockets stay open, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def cli(self, *words: str, database: int | None = 0, password: str | None = None) -> str:
        """Do a command, and return what ``redis-cli`` would print, without the cost of a process.

        Parameters:
            database: ``None`` for a Sentinel, which has none.
        """
        with (
            socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S) as connection,
            connection.makefile("rb") as replies,
        ):
            before = [] if password is None else [("AUTH", password)]
            selected = [] if database is None else [("SELECT", str(database))]
            for command in (*before, *selected, words):
                encoded = [word.encode() for word in command]
                parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
                connection.sendall(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
                reply = _read_reply(replies)
        return reply.replace("\r\n", "\n").rstrip("\n")


def _read_reply(replies: BinaryIO) -> str:
    line = replies.readline().decode()
    assert line, "Redis closed the connection"
    kind, rest = line[0], line[1:].rstrip("\r\n")
    if kind == "-":
        raise AssertionError(rest)
    if kind == "*":
        return "\n".join([_read_reply(replies) for _ in range(int(rest))])
    if kind != "$":
        return rest
    size = int(rest)
    return replies.read(size + 2)[:size].decode() if size >= 0 else ""
