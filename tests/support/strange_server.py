"""A WebSocket server other than Tambur, or a hostile one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from websockets.sync.server import ServerConnection, serve

GREETING = "id:a0629978-28d8-4fd4-b862-f67e9b6dfd8f"

HOSTILE = "\x1b[2J\x9b2J\x9d0;title\x07\x7f\u202edrawkcab\u2066"
"""Text that a terminal acts on: escape sequences, of 7 and of 8 bits, DEL, and bidirectional controls."""

HARMLESS = "\\x1b[2J\\x9b2J\\x9d0;title\\x07\\x7f\\u202edrawkcab\\u2066"
"""The same text as an error shows it."""


@contextlib.contextmanager
def strange_server(behave: Callable[[ServerConnection], None]) -> Iterator[str]:
    """Serve WebSockets that ``behave`` handles, then read them to their end; yields ``host:port``."""

    def handle(connection: ServerConnection) -> None:
        behave(connection)
        for _ in connection:
            pass

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def sending(*frames: str) -> Callable[[ServerConnection], None]:
    """Send some frames."""

    def behave(connection: ServerConnection) -> None:
        for frame in frames:
            connection.send(frame)

    return behave
