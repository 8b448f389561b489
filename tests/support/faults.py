"""A server on a real socket that misbehaves on command, and keeps every request that it receives."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from tambur import Tambur

from .certificate import Certificate

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
TIMEOUT_S = 60.0


class Received(NamedTuple):
    """A request, and the number of its connection."""

    connection: int
    head: bytes
    body: bytes


Behaviour: TypeAlias = Callable[[socket.socket], bool]
"""Answers one request, and returns whether the connection stays open."""


def answer(data: bytes) -> Behaviour:
    """Send ``data`` and keep the connection open."""

    def behave(connection: socket.socket) -> bool:
        connection.sendall(data)
        return True

    return behave


def response(status: str, *headers: str, body: bytes = b"") -> Behaviour:
    """Send a complete answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return answer("\r\n".join(lines).encode("latin-1") + body)


def answer_and_close(data: bytes) -> Behaviour:
    """Send ``data``, which may be a part of an answer, and close the connection."""

    def behave(connection: socket.socket) -> bool:
        connection.sendall(data)
        return False

    return behave


def reset(connection: socket.socket) -> bool:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return False


def hang(connection: socket.socket) -> bool:
    """Send nothing until the client closes the connection."""
    connection.settimeout(TIMEOUT_S)
    return bool(connection.recv(1))


ok = answer(NO_CONTENT)
drop = answer_and_close(b"")
ok_then_close = answer_and_close(NO_CONTENT)


def tls_context(certificate: Certificate) -> ssl.SSLContext:
    """The TLS settings of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.both)
    return context


def publisher(server: FaultyServer, secret: str = "secret", **options: Any) -> Tambur:
    """A publisher for a server with faults, with options of the constructor."""
    return Tambur("key", "app", secret, server.host, **options)


class FaultyServer:
    """Behaves once for each request, in the given order, and then answers every request with 204.

    Parameters:
        tls: for a server with TLS; ``None`` for plain HTTP.
    """

    def __init__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._behaviours: queue.SimpleQueue[Behaviour] = queue.SimpleQueue()
        for behaviour in behaviours:
            self._behaviours.put(behaviour)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[Received] = []
        self.connections = 0
        self.closed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> FaultyServer:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # its thread may just have closed it
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.received]

    def wait(self, count: int) -> None:
        """Wait until it has read so many requests: a client with a short timeout may give up before."""
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.received) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        if self._tls is not None:
            self._open.discard(connection)
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:  # wrap_socket has closed the connection
                return
            self._open.add(connection)
        with connection, connection.makefile("rb") as reader:
            try:
                while (request := _read_request(reader, number)) is not None:
                    self.received.append(request)
                    behaviour = ok if self._behaviours.empty() else self._behaviours.get()
                    if not behaviour(connection):
                        break
            except OSError:
                pass  # some tests break the connection
            finally:
                self._open.discard(connection)
        self.closed.put(number)


def _read_request(reader: socket.SocketIO | object, number: int) -> Received | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line: bytes = reader.readline()  # type: ignore[union-attr]
        if not line:
            return None
        head += line
    lengths = [
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    ]
    length = lengths[0] if lengths else 0
    return Received(number, head, reader.read(length))  # type: ignore[union-attr]
