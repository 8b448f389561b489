"""Ports that nothing else takes before the test run ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

# Below those that Linux gives to outgoing connections and to servers that ask for any port.
_PORTS = range(10_000, 32_000)

_reserved: list[IO[str]] = []
"""Locked files: other test runs on this machine, and other processes of this one, pass over their ports."""


def free_port() -> int:
    """Reserve a port that nobody listens on."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Reserve consecutive ports that nobody listens on, and return the first."""
    chance = random.SystemRandom()
    while True:
        first = chance.choice(_PORTS)
        with contextlib.suppress(OSError), contextlib.ExitStack() as unless_all_are_free:
            files = [unless_all_are_free.enter_context(_lock(port)) for port in range(first, first + count)]
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
            unless_all_are_free.pop_all()
            _reserved.extend(files)
            return first


def _lock(port: int) -> IO[str]:
    directory = Path(tempfile.gettempdir(), f"tambur-test-ports-{os.getuid()}")
    directory.mkdir(exist_ok=True)
    file = (directory / str(port)).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
