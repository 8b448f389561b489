"""Accepting connections: each counts from the moment it is accepted, and one too many is refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from .config import Limits
from .logs import line

PAUSE_S = 1.0
"""How long accepting pauses when the system has no resources for another connection, in seconds."""

logger = logging.getLogger("tambur.server")


class Acceptor:
    """Accepts the connections of one listening socket; a connection that is shaking hands counts, too.

    asyncio's own server gives a TLS connection to its protocol after the handshake, so connections that never
    shake hands would be neither counted nor refused.

    Parameters:
        listener: a socket that listens; its owner closes it.
        make_protocol: makes the protocol of one connection.
        connections: all connections of the server. The acceptor adds those that it accepts, and removes those
            whose handshake fails; a protocol removes itself when its connection is lost.
        tls: ``None`` for connections without TLS.
        limits: a connection beyond ``max_connections`` is closed; without TLS it is answered 503 first. A TLS
            handshake may take ``request_timeout_s``.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        connections: set[Any],
        *,
        tls: ssl.SSLContext | None,
        limits: Limits,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._connections = connections
        self._max_connections = limits.max_connections
        self._tls = tls
        self._handshake_timeout_s = limits.request_timeout_s if tls is not None else None
        self._connecting: set[asyncio.Task[Any]] = set()
        listener.settimeout(0)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def close(self) -> None:
        """Stop accepting, and end the unfinished handshakes."""
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        # By now each of these has begun, so that its cancellation closes its socket.
        for task in self._connecting:
            task.cancel()
        if self._connecting:
            await asyncio.wait(self._connecting)

    async def _accept(self) -> None:
        while True:
            try:
                connection = await self._accept_one()
            except ConnectionAbortedError:
                continue  # by the client, before it was accepted
            except OSError as error:  # no file descriptor or no memory is left
                logger.error(line("cannot accept connections", reason=error.strerror))  # noqa: TRY400
                await asyncio.sleep(PAUSE_S)
                continue
            if len(self._connections) < self._max_connections:
                self._connect(connection)
            else:
                self._refuse(connection)
            await asyncio.sleep(0)  # all other connections have their turn

    async def _accept_one(self) -> socket.socket:
        # The event loop's sock_accept loses a connection that arrives in the turn in which it is cancelled.
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(BlockingIOError):
                connection, _ = self._listener.accept()
                connection.settimeout(0)
                return connection
            arrived = asyncio.Event()
            try:
                loop.add_reader(self._listener, arrived.set)
            except NotImplementedError:  # on Windows
                return (await loop.sock_accept(self._listener))[0]
            try:
                await arrived.wait()
            finally:
                loop.remove_reader(self._listener)

    def _connect(self, connection: socket.socket) -> None:
        protocol = self._make_protocol()
        self._connections.add(protocol)

        def connected(task: asyncio.Task[Any]) -> None:
            self._connecting.discard(task)
            if task.cancelled() or task.exception() is not None:
                self._connections.discard(protocol)
            # A handshake that fails concerns only its client.
            with contextlib.suppress(asyncio.CancelledError, OSError):
                task.result()

        loop = asyncio.get_running_loop()
        task = loop.create_task(
            loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_timeout_s,
            )
        )
        self._connecting.add(task)
        task.add_done_callback(connected)

    def _refuse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client may have gone
            if self._tls is None:
                connection.send(_refusal(self._max_connections))


def _refusal(max_connections: int) -> bytes:
    body = f"Service Unavailable: {max_connections} connections are open already\n"
    return (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"
    ).encode()
