"""A TCP proxy on its own port that forwards everything, until a test makes it drop, delay or truncate."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from dataclasses import dataclass

CHUNK_BYTES = 65536


@dataclass(eq=False)
class _Connection:
    """The two sockets of one connection."""

    client: asyncio.StreamWriter
    target: asyncio.StreamWriter
    is_truncated: bool = False

    def abort(self) -> None:
        for writer in (self.client, self.target):
            writer.transport.abort()


class TcpProxy:
    """Listens on 127.0.0.1 from the moment it is made; any thread may call it.

    Parameters:
        ports: to which connections go in turn, on 127.0.0.1; one that refuses is passed over.
    """

    def __init__(self, *ports: int) -> None:
        self._ports = deque(ports)
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self._delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        # Every accepted connection has a task immediately, so that the end of the proxy finds it.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept)
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy")
        self._thread.start()

    def __enter__(self) -> TcpProxy:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Commands from tests

    def refuse(self, refuses: bool) -> None:
        """Drop every new connection, or stop doing so."""
        self._refuses = refuses

    def redirect(self, *ports: int) -> None:
        """Send new connections to other ports."""

        def redirect() -> None:
            self._ports = deque(ports)

        self._do(redirect)

    def delay(self, delay_s: float) -> None:
        """Have every chunk wait, in both directions, before it is passed on; 0 for no delay."""
        self._delay_s = delay_s

    def drop(self) -> int:
        """Break all connections with their data in transit; return how many there were."""
        return self._do(self._drop)

    def truncate(self) -> int:
        """Forward half of the next data on each connection, then break it."""
        return self._do(self._truncate)

    @property
    def connections(self) -> list[tuple[int, int]]:
        """The ports of those that are open: the client's, and that of the target."""
        return [
            (connection.client.get_extra_info("peername")[1], connection.target.get_extra_info("peername")[1])
            for connection in self._open.copy()
        ]

    # In the event loop

    def _do(self, act: object) -> int:
        assert callable(act)

        async def call() -> int:
            count = len(self._open)
            act()
            return count

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _drop(self) -> None:
        for connection in self._open:
            connection.abort()

    def _truncate(self) -> None:
        for connection in self._open:
            connection.is_truncated = True

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            if self._refuses:
                raise ConnectionRefusedError  # noqa: TRY301
            target_reader, target = await self._connect()
        except (ConnectionRefusedError, asyncio.CancelledError):
            writer.transport.abort()
            return
        connection = _Connection(writer, target)
        if self._refuses:  # since it was begun, and so it was not among those that were dropped
            connection.abort()
            return
        self._open.add(connection)
        try:
            await asyncio.gather(
                self._pass_on(connection, reader, target), self._pass_on(connection, target_reader, writer)
            )
        finally:
            self._open.discard(connection)
            connection.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(len(self._ports)):
            port = self._ports[0]
            self._ports.rotate(-1)
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                pass
        raise ConnectionRefusedError(f"nobody listens on {list(self._ports)}")

    async def _pass_on(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if connection.is_truncated:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    connection.abort()
                    return
                writer.write(data)
                await writer.drain()
            if not writer.is_closing():
                writer.write_eof()
        except OSError:
            connection.abort()

    async def _end(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await asyncio.sleep(0)  # in which every task begins, and so owns its connection
        self._drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # in which what was aborted is closed
