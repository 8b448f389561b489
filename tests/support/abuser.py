"""The parts of abuses: connections, requests and frames, and how a process runs them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from multiprocessing.connection import Connection as Pipe

from websockets.frames import Frame, Opcode

from tambur.protocol import oauth as signing

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "noisy"
SECRET = "another"
STREAM = "noise"
PATH = f"/{API_KEY}/{APP_ID}"

DRIP_S = 0.2
LOST_COMMANDS = 300
LOST_POSTS = 50
STREAMS = 1000

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Seen(Counter[str]):
    """How often each answer has been seen.

    Parameters:
        port: of the server.
        clients: how many there are.
        stream: whose subscribers suffer; "" for an abuse of the server as a whole.
    """

    def __init__(self, port: int, clients: int, stream: str) -> None:
        super().__init__()
        self.port = port
        self.stream = stream
        self.starting = clients
        self.by_all = asyncio.Event()

    def started(self) -> None:
        """One more client has seen what comes of what it does."""
        self.starting -= 1
        if self.starting == 0:
            self.by_all.set()


# The parts of abuses.


@contextlib.asynccontextmanager
async def connected(seen: Seen) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", seen.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def handshake(path: str = PATH) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


@contextlib.asynccontextmanager
async def subscriber(seen: Seen) -> AsyncIterator[Connection]:
    """A WebSocket whose greeting has been read."""
    async with connected(seen) as (reader, writer):
        await greet(reader, writer)
        yield reader, writer


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = PATH) -> str:
    """Open a WebSocket; returns its subscriber id."""
    writer.write(handshake(path))
    status, _ = await read_answer(reader)
    assert status == "101", status
    _, greeting = await read_frame(reader)
    return greeting.decode().removeprefix("id:")


async def read_answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """An answer's status and body; "closed" if there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head.split()[1].decode(), await reader.readexactly(int(size or 0))
    except (asyncio.IncompleteReadError, ConnectionError):
        return "closed", b""


@contextlib.contextmanager
def last_look(writer: asyncio.StreamWriter) -> Iterator[Callable[[str], str]]:
    """Yields a function that finds the status of an answer that came before the connection broke.

    asyncio drops the answer if it notices only when it writes that the server has closed.
    """
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as left:

        def look(status: str) -> str:
            if status != "closed":
                return status
            try:
                answer = left.recv(65536)
            except OSError:
                return status
            return answer.split()[1].decode() if answer.startswith(b"HTTP/") else status

        yield look


async def read_frame(reader: asyncio.StreamReader) -> tuple[Opcode, bytes]:
    first, size = await reader.readexactly(2)
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return Opcode(first & 15), await reader.readexactly(size)


def stop_reading(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def command(*array: object) -> bytes:
    return frame(Opcode.TEXT, json.dumps(array).encode())


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: h", *headers, "", ""]).encode() + body


_FORM = "Content-Type: application/x-www-form-urlencoded"
_PUBLISH = f"POST /app/{APP_ID}/stream/{STREAM}"
_nonces = itertools.count()


def publish(message: str, secret: str = SECRET) -> bytes:
    body = signing.sign_publish(
        f"http://h/app/{APP_ID}/stream/{STREAM}",
        message,
        api_key=API_KEY,
        secret=secret,
        timestamp=int(time.time()),
        nonce=f"{os.getpid()}-{next(_nonces)}",
    ).encode()
    return request(_PUBLISH, _FORM, f"Content-Length: {len(body)}", body=body)


async def send_until_closed(seen: Seen, start: bytes, more: bytes) -> None:
    """Send without end, and read what comes; then again, on a connection of its own."""
    for turn in itertools.count():
        async with connected(seen) as (reader, writer):
            with last_look(writer) as look:
                answer = asyncio.ensure_future(read_answer(reader))
                with contextlib.suppress(ConnectionError):
                    writer.write(start)
                    while not answer.done():
                        writer.write(more)
                        await writer.drain()
                        await asyncio.sleep(0)
                seen[look((await answer)[0])] += 1
        if turn == 0:
            seen.started()


@contextlib.asynccontextmanager
async def sending(writer: asyncio.StreamWriter, sent: bytes) -> AsyncIterator[None]:
    """Send as fast as the server reads, until the end of the block."""

    async def send() -> None:
        while True:
            writer.write(sent)
            await writer.drain()

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # it may have met the end of the connection


async def poll_path(seen: Seen, path: str = PATH) -> str:
    """Become a subscriber that polls; returns the path of its requests."""
    async with connected(seen) as (reader, writer):
        writer.write(request(f"GET /comet{path}?instance=1&callback=f"))
        _, body = await read_answer(reader)
        return f"/comet{path}/{body.decode().split('id:')[1][:36]}?instance=1&callback=f"


async def hoard(seen: Seen, hold: Callable[[Connection], Awaitable[None]], path: str = PATH) -> None:
    """Have the server hold as much as it does; when it closes the connection, do so again on another."""
    has_started = False
    while True:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with connected(seen) as (reader, writer):
                if path:
                    await greet(reader, writer, path)
                await hold((reader, writer))
                if not has_started:
                    has_started = True
                    seen.started()
                while await reader.read(65536):
                    pass
        seen["closed"] += 1
        if not has_started:
            has_started = True
            seen.started()


async def drip(seen: Seen, connection: Connection, data: bytes) -> None:
    """Send a byte now and then until it is closed."""
    reader, writer = connection
    answer = asyncio.ensure_future(read_answer(reader))
    for byte in itertools.chain(data, itertools.repeat(b"x"[0])):
        writer.write(bytes([byte]))
        if (await asyncio.wait([answer], timeout=DRIP_S))[0]:
            break
    seen[answer.result()[0]] += 1


Abuse = Callable[[Seen], Awaitable[None]]


def run(abuse: Abuse, port: int, clients: int, stream: str, pipe: Pipe) -> None:
    """Have each client abuse a server until the other end of the pipe sends something.

    Once every client has seen the effects, the pipe gets how often they saw each answer. At the end it gets the same
    again, with the seconds in between.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_run(abuse, Seen(port, clients, stream), pipe))


async def _run(abuse: Abuse, seen: Seen, pipe: Pipe) -> None:
    started = time.monotonic()
    tasks = [asyncio.ensure_future(abuse(seen)) for _ in range(seen.starting)]
    told = asyncio.ensure_future(_run_until_told(seen, pipe))
    await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()  # none of them ends by itself but by an error
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)  # some may fail while they are cancelled
    pipe.send({**seen, "seconds": time.monotonic() - started})


async def _run_until_told(seen: Seen, pipe: Pipe) -> None:
    await seen.by_all.wait()
    pipe.send(dict(seen))
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
