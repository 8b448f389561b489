"""The buffer into which the server reads from connections."""

from __future__ import annotations

import asyncio

from tambur.server import Server
from tambur.server.transports.reading import SharedBufferProtocol, make_read_buffer
from tests.support.app import subscriber

from ...support.wire import ask, connect, read_answer, signed


def test_asyncio_reads_into_the_shared_buffer() -> None:
    buffer = make_read_buffer()

    class Listener(SharedBufferProtocol):
        def __init__(self) -> None:
            self._read_buffer = buffer
            self.received = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            self.received.set_result(data)

    async def exchange() -> bytes:
        loop = asyncio.get_running_loop()
        listener = Listener()
        async with await loop.create_server(lambda: listener, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            data: bytes = await asyncio.wait_for(listener.received, 10)
            writer.close()
            await writer.wait_closed()
        return data

    assert asyncio.run(exchange()) == b"hello"
    assert bytes(buffer[:5]) == b"hello"


def test_requests_that_come_in_halves_by_turns_do_not_mix(server: Server, stream: str) -> None:
    texts = ["a" * 1000, "b" * 1000]
    requests = [signed(server, stream, text) for text in texts]
    with subscriber(server, stream) as receiver, connect(server) as first, connect(server) as second:
        connections = (first, second)
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request[:-500])
        # By the time that this is answered, both halves have been read.
        assert ask(server, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request[-500:])
            assert read_answer(connection).status == 204
        assert [receiver.receive(60).text for _ in texts] == texts
