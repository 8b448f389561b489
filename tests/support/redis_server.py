"""A real Redis on its own port, which tests stop, kill, pause and restart."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Its sockets stay open, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def cli(self, *words: str) -> str:
        """The output of ``redis-cli`` for a command."""
        return subprocess.run(
            ["redis-cli", "-p", str(self.port), *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        ).stdout.rstrip("\n")
