"""How the server reads from connections."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import sys

from starlette.requests import ClientDisconnect, Request

READ_BYTES = 256 * 1024
"""The most bytes of one read from a connection; the same as asyncio's."""


# A client that still sends its body cannot read an answer. So a body over the limit is read to its end, up to
# this multiple of the limit. A longer one is no mistake.
_MAX_DISCARDED_BODIES = 8

TLS_READ_BYTES = 8 * 1024
"""How many encrypted bytes asyncio reads from a connection in one read; more does not help large frames."""


def limit_tls_buffers() -> None:
    """Have asyncio's event loop keep a smaller buffer for each TLS connection of this process.

    Its default is 256 KiB each, except in Python 3.10, which keeps none. uvloop reserves 256 KiB but touches
    only as much as it reads at once.
    """
    if sys.version_info >= (3, 11):
        asyncio.sslproto.SSLProtocol.max_size = TLS_READ_BYTES


def make_read_buffer() -> memoryview:
    """Create the buffer into which the connections of one event loop are read, one after another."""
    return memoryview(bytearray(READ_BYTES))


class SharedBufferProtocol(asyncio.Protocol, asyncio.BufferedProtocol):
    """A protocol whose ``data_received`` gets the bytes in a shared buffer.

    asyncio by itself allocates for each read as much as may come, and gives back what did not. For anything
    so large malloc maps and unmaps memory, whose pages the kernel clears: that takes longer than the read.
    uvloop, which has such a buffer already, calls ``data_received`` itself.
    """

    __slots__ = ("_read_buffer",)

    _read_buffer: memoryview

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._read_buffer[:nbytes]))


async def read_body(request: Request, max_bytes: int) -> bytes | None:
    """Read the body of a request.

    Returns:
        ``None`` for a body of more than ``max_bytes``.

    Raises:
        ClientDisconnect: if the client closes the connection.
    """
    chunks = []
    size = 0
    is_more = True
    # Not request.stream(): an asynchronous generator costs a publish 3 % more.
    while is_more and size <= _MAX_DISCARDED_BODIES * max_bytes:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, is_more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
    return b"".join(chunks) if size <= max_bytes else None
