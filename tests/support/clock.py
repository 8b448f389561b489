"""A server whose clock a test moves, so that no verdict depends on how long a test really takes.

    python -m tests.support.clock CONFIG

serves in a process of its own. Each line of the standard input moves its clock by so many seconds; a line of the
standard output confirms it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

from tambur.server import Config, Server

from .wire import Listening, ask

TIMEOUT_S = 60.0

TURNS = 50
"""Turns of the event loop: more than any step of the server takes, such as to notice that a client has gone."""


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose clock a test can move forward."""

    def __init__(self) -> None:
        self._skipped_s = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self._skipped_s

    def skip(self, seconds: float) -> None:
        """Move the clock forward from another thread; return when every timer that became due has run."""
        done: Future[None] = Future()

        def move() -> None:
            self._skipped_s += seconds
            self.call_later(0, done.set_result, None)

        self.call_soon_threadsafe(move)
        done.result(TIMEOUT_S)

    def settle(self) -> None:
        """Wait until the server has done, step by step, all that follows from what it has read."""

        async def take_turns() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(take_turns(), self).result(TIMEOUT_S)


class Clocked(NamedTuple):
    """A running server and its clock."""

    server: Server
    clock: Clock

    def skip(self, seconds: float) -> None:
        """Let the server process all that was sent to it, then move its clock forward.

        Parameters:
            seconds: added to the real time; choose limits far above a test's duration.
        """
        settle(self.server)
        self.clock.settle()
        self.clock.skip(seconds)


def settle(server: Listening) -> None:
    """Wait until the server has read all that was sent before: it reads connections in turns."""
    ask(server, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")


@contextlib.contextmanager
def clocked(config: Config) -> Iterator[Clocked]:
    """Run a server in its own thread, on a loop whose clock the test moves."""
    server = Server(config)
    clock = Clock()
    ready = threading.Event()
    server._uvicorn.on_ready = ready.set

    def run() -> None:
        try:
            clock.run_until_complete(server._uvicorn.serve([server._socket]))
        finally:
            ready.set()
            server._socket.close()
            clock.close()

    thread = threading.Thread(target=run, name="clocked-server")
    thread.start()
    ready.wait(TIMEOUT_S)
    try:
        yield Clocked(server, clock)
    finally:
        server.stop()
        thread.join()


def main(config: str) -> None:
    server = Server(Config.from_toml(config))
    clock = Clock()

    def move() -> None:
        for line in sys.stdin:
            clock.skip(float(line))
            print("moved", flush=True)

    def on_ready() -> None:
        print(f"Tambur is listening on {server.url}", flush=True)
        threading.Thread(target=move, daemon=True).start()

    server._uvicorn.on_ready = on_ready
    clock.run_until_complete(server._uvicorn.serve([server._socket]))


if __name__ == "__main__":
    main(sys.argv[1])
