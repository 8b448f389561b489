"""A node in one process or several, which tests kill, pause, restart and inspect."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from .app import API_KEY, APP_ID, SECRET
from .ports import free_port

TIMEOUT_S = 60


class NodeProcess:
    """``tambur serve`` with the app that tests use, listening once the constructor returns.

    Parameters:
        directory: where its configuration and its log are kept.
        broker: the URL of its broker.
        words: further arguments of its command line.
        console_port: 0 for no console; with several workers, that of the first.
        node_timeout_s: as in the configuration.
        more: further lines of the configuration, from those of the app on.
    """

    def __init__(
        self,
        directory: Path,
        broker: str,
        *words: str,
        console_port: int = 0,
        node_timeout_s: float = 30,
        more: str = "",
    ) -> None:
        self.console_port = console_port
        self._directory = directory
        self._words = words
        console = f"console_port = {console_port}\n" if console_port else ""
        (directory / "tambur.toml").write_text(
            f'[server]\nbroker = "{broker}"\nnode_timeout_s = {node_timeout_s}\n{console}'
            f'[[apps]]\napi_key = "{API_KEY}"\napp_id = "{APP_ID}"\nsecrets = ["{SECRET}"]\n{more}'
        )
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start again, on the same port."""
        command = [sys.executable, "-m", "tambur", "serve", "--config", str(self._directory / "tambur.toml")]
        with (self._directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("Tambur is listening on ").strip()
        if not self.url:
            self.process.communicate()
            raise AssertionError(self.log)

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=TIMEOUT_S)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Its sockets stay open, and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    # State

    @property
    def log(self) -> str:
        """All lines of its log, including those before a restart."""
        return (self._directory / "log").read_text("utf-8")

    def files(self) -> int:
        """How many file descriptors it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def read_metrics(port: int) -> dict[str, float]:
    """The metrics at a port of this machine."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S).text
    return {name: float(value) for name, value in re.findall(r"^(tambur\S+) (\S+)$", text, re.MULTILINE)}


def metrics_when(port: int, condition: Callable[[dict[str, float]], object]) -> dict[str, float]:
    """The metrics, once they fulfil a condition."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition(metrics := read_metrics(port)):
        assert time.monotonic() < deadline, metrics
        time.sleep(0.01)
    return metrics
