"""A server with a console, and a viewer without a browser."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import requests

from tambur.server import Config, Server, in_background

from .app import APP
from .ports import free_port
from .wire import TIMEOUT_S

FAST_HASH = "scrypt$2$1$1$c2FsdA==$JQEZfMi3u1vjLpMaWcI7d7V9TPliw46M7YH9Mecfdz0="
"""A hash of PASSWORD that is checked in no time."""

PASSWORD = "correct horse"


@contextlib.contextmanager
def console(**settings: Any) -> Iterator[Server]:
    """A server with a console, and the app that tests use unless the settings have others."""
    defaults: dict[str, Any] = {"apps": (APP,), "port": 0, "console_port": free_port()}
    config = Config(**(defaults | settings))
    with in_background(config) as server:
        yield server


class Viewer:
    """Reads the live events of a console.

    Parameters:
        url: of the events.
    """

    def __init__(self, url: str, **arguments: Any) -> None:
        self._answer = requests.get(url, stream=True, timeout=TIMEOUT_S, **arguments)
        self._lines = self._answer.iter_lines(chunk_size=1)
        self.status = self._answer.status_code

    def close(self) -> None:
        self._answer.close()

    def read(self, *names: str) -> Any:
        """Wait for the next event with one of these names, and return its data."""
        name = None
        deadline = time.monotonic() + TIMEOUT_S
        for line in self._lines:
            assert time.monotonic() < deadline, f"none of {names} came in time"
            word, _, rest = line.decode().partition(": ")
            if word == "event":
                name = rest
            elif word == "data" and name in names:
                return json.loads(rest)
        raise AssertionError(f"the events ended before any of {names}")
