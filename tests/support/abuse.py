"""What abusers do to a server: a process of its own, so that it holds up nobody else.

    python abuse.py PORT ABUSE CLIENTS

Each client does one thing again and again, until the standard input ends. Once every client has seen what
comes of it, the process prints how often which answer has been seen, as a line of JSON, and at its end again,
with the seconds in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import quote

from websockets.frames import Frame, Opcode

from tambur.protocol import oauth as signing

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "noisy"
SECRET = "another"
STREAM = "noise"
PATH = f"/{API_KEY}/{APP_ID}"

DRIP_S = 0.2
LOST_COMMANDS = 1000
STREAMS = 1000

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Seen(Counter[str]):
    """How often each answer has been seen."""

    def __init__(self, port: int, clients: int) -> None:
        super().__init__()
        self.port = port
        self.starting = clients
        self.by_all = asyncio.Event()

    def started(self) -> None:
        """One more client has seen what comes of what it does."""
        self.starting -= 1
        if self.starting == 0:
            self.by_all.set()


# What abuses are made of.


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
            answer = asyncio.ensure_future(read_answer(reader))
            with contextlib.suppress(ConnectionError):
                writer.write(start)
                while not answer.done():
                    writer.write(more)
                    await writer.drain()
                    await asyncio.sleep(0)
            seen[(await answer)[0]] += 1
        if turn == 0:
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


# The abuses: what one client does, for ever.


async def idle(seen: Seen) -> None:
    """Be connected, and no more."""
    async with subscriber(seen) as (reader, _):
        seen["connected"] += 1
        seen.started()
        await reader.read()
        seen["closed"] += 1


async def silence(seen: Seen) -> None:
    """Connect, and say nothing; where that ends, again."""
    for turn in itertools.count():
        try:
            async with connected(seen) as (reader, _):
                await reader.read()
        except ConnectionError:
            pass  # an end like any other
        seen["closed"] += 1
        if turn == 0:
            seen.started()


async def handshakes(seen: Seen) -> None:
    """Connect, and leave at once."""
    for turn in itertools.count():
        async with connected(seen) as (reader, writer):
            writer.write(handshake())
            seen[(await read_answer(reader))[0]] += 1
        if turn == 0:
            seen.started()


async def never_read(seen: Seen) -> None:
    """Subscribe to what is published without end, and read none of it."""
    for turn in itertools.count():
        async with subscriber(seen) as (_, writer), connected(seen) as (answers, publisher):
            stop_reading(writer)
            writer.write(command("subscribe", 1, STREAM))
            while not writer.transport.is_closing():
                publisher.write(publish("x" * 60_000))
                await read_answer(answers)
                writer.write(frame(Opcode.PONG))  # what nobody reads shows its end to who writes
            seen["closed"] += 1
        if turn == 0:
            seen.started()


async def drip_head(seen: Seen) -> None:
    """Send the head of a request a byte at a time."""
    for turn in itertools.count():
        async with connected(seen) as connection:
            await drip(seen, connection, request("GET /health")[:-2] + b"X: ")
        if turn == 0:
            seen.started()


async def drip_body(seen: Seen) -> None:
    """Send the body of a publish a byte at a time."""
    for turn in itertools.count():
        async with connected(seen) as connection:
            connection[1].write(request(_PUBLISH, _FORM, "Content-Length: 9999"))
            await drip(seen, connection, b"")
        if turn == 0:
            seen.started()


async def drip_frame(seen: Seen) -> None:
    """Send a frame a byte at a time."""
    for turn in itertools.count():
        async with subscriber(seen) as connection:
            await drip(seen, connection, command("subscribe", 1, "x" * 60_000))
        if turn == 0:
            seen.started()


async def streams(seen: Seen) -> None:
    """Be subscribed to as many streams as there may be, and try for one more."""
    async with subscriber(seen) as (reader, writer):
        for handle in range(1, STREAMS + 2):
            writer.write(command("subscribe", handle, f"{id(reader)}-{handle}"))
        for _ in range(STREAMS + 1):
            _, ack = await read_frame(reader)
            seen[json.loads(ack)[2]] += 1
        seen.started()
        await reader.read()


async def publishes(seen: Seen, secret: str = SECRET) -> None:
    """Publish, and again once that is answered."""
    async with connected(seen) as (reader, writer):
        for turn in itertools.count():
            writer.write(publish("x", secret))
            seen[(await read_answer(reader))[0]] += 1
            if turn == 0:
                seen.started()


async def forgeries(seen: Seen) -> None:
    """Publish with a wrong secret."""
    await publishes(seen, "wrong")


async def repeat(seen: Seen, data: bytes) -> None:
    """Send one request again and again, each time on a connection of its own."""
    for turn in itertools.count():
        async with connected(seen) as (reader, writer):
            writer.write(data)
            seen[(await read_answer(reader))[0]] += 1
        if turn == 0:
            seen.started()


async def percent_signs(seen: Seen) -> None:
    """Publish with a wrong signature a body that takes as long as possible to decode and to sign."""
    body = publish("x", "wrong").partition(b"\r\n\r\n")[2].replace(b"message=x", b"message=" + b"%" * 190_000)
    await repeat(seen, request(_PUBLISH, _FORM, f"Content-Length: {len(body)}", body=body))


async def small_chunks(seen: Seen) -> None:
    """Send a body in chunks of one byte."""
    await repeat(seen, request(_PUBLISH, _FORM, "Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 200_000))


async def colons(seen: Seen) -> None:
    """Publish to a host that takes as long as possible to check."""
    await repeat(seen, publish("x").replace(b"Host: h", b"Host: [v1." + b":" * 8000))


async def pipeline(seen: Seen) -> None:
    """Send requests without waiting for their answers."""
    await send_until_closed(seen, b"", request("GET /health") * 1000)


async def never_read_answers(seen: Seen) -> None:
    """Ask for much, and read none of it."""
    for turn in itertools.count():
        async with connected(seen) as (_, writer):
            stop_reading(writer)
            while not writer.transport.is_closing():
                writer.write(request("GET /tambur.js"))
                await asyncio.sleep(0.001)
            seen["closed"] += 1
        if turn == 0:
            seen.started()


async def frames(seen: Seen, sent: bytes) -> None:
    """Send as many frames as are taken; read what they are answered with."""
    async with subscriber(seen) as (reader, writer):

        async def send() -> None:
            while True:
                writer.write(sent)
                await writer.drain()

        sending = asyncio.create_task(send())
        try:
            for turn in itertools.count():
                opcode, _ = await read_frame(reader)
                seen[opcode.name] += 1
                if turn == 0:
                    seen.started()
        finally:
            sending.cancel()


async def commands(seen: Seen) -> None:
    """Send commands without end."""
    await frames(seen, (command("subscribe", 1, "x") + command("unsubscribe", 2, "x")) * 500)


async def pings(seen: Seen) -> None:
    """Send pings without end."""
    await frames(seen, frame(Opcode.PING) * 1000)


async def fragments(seen: Seen) -> None:
    """Send fragments of one message that never ends."""
    for turn in itertools.count():
        async with subscriber(seen) as (reader, writer):
            writer.write(frame(Opcode.TEXT, b"[1", fin=False))
            end = asyncio.ensure_future(read_frame(reader))
            with contextlib.suppress(ConnectionError):
                while not end.done():
                    writer.write(frame(Opcode.CONT, b",1" * 500, fin=False) * 100)
                    await writer.drain()
                    await asyncio.sleep(0)
            try:
                opcode, data = await end
                seen[f"{opcode.name} {int.from_bytes(data[:2], 'big')}"] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                seen["closed"] += 1
        if turn == 0:
            seen.started()


async def polls(seen: Seen) -> None:
    """Become one more subscriber who polls, until there are too many, and then go on trying."""
    has_started = False
    async with connected(seen) as (reader, writer):
        while True:
            writer.write(request(f"GET /comet{PATH}?instance=1&callback=f"))
            status, _ = await read_answer(reader)
            seen[status] += 1
            if status == "503" and not has_started:
                has_started = True
                seen.started()


async def poll_path(seen: Seen, path: str = PATH) -> str:
    """Become a subscriber that polls; returns the path of its requests."""
    async with connected(seen) as (reader, writer):
        writer.write(request(f"GET /comet{path}?instance=1&callback=f"))
        _, body = await read_answer(reader)
        return f"/comet{path}/{body.decode().split('id:')[1][:36]}?instance=1&callback=f"


async def lost_commands(seen: Seen) -> None:
    """Send commands by long polling, and close each connection without waiting for the answer."""
    path = await poll_path(seen)
    stream = "x" * 7000 + "\U0001f600"  # with which Python keeps four bytes for each character
    sent = request(f"GET {path}&data={quote(json.dumps(['subscribe', 1, stream], ensure_ascii=False))}")
    async with connected(seen) as connection:
        polling = asyncio.create_task(keep_polling(connection, path))
        try:
            for turn in itertools.count(1):
                async with connected(seen) as (_, writer):
                    writer.write(sent)
                    await writer.drain()
                    writer.write_eof()
                seen["lost"] += 1
                if turn == LOST_COMMANDS:
                    seen.started()
        finally:
            polling.cancel()


async def keep_polling(connection: Connection, path: str) -> None:
    reader, writer = connection
    while True:
        writer.write(request(f"GET {path}"))
        status, _ = await read_answer(reader)
        assert status == "200", status


async def poll_again(seen: Seen) -> None:
    """Poll in place of the poll before, which is answered."""
    async with connected(seen) as first, connected(seen) as second:
        one, other = first, second
        poll = request(f"GET {await poll_path(seen)}")
        one[1].write(poll)
        for turn in itertools.count():
            other[1].write(poll)
            seen[(await read_answer(one[0]))[0]] += 1
            one, other = other, one
            if turn == 0:
                seen.started()


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


async def hoard_pings(seen: Seen) -> None:
    """Send more pings at once than are answered in many seconds."""

    async def hold(connection: Connection) -> None:
        connection[1].write(frame(Opcode.PING) * (256 * 1024 // len(frame(Opcode.PING))))
        await connection[1].drain()

    await hoard(seen, hold)


async def hoard_requests(seen: Seen) -> None:
    """Send publishes but for their last byte."""

    async def hold(connection: Connection) -> None:
        connection[1].write(request(_PUBLISH, _FORM, "Content-Length: 190000", body=b"x" * 189_999))
        await connection[1].drain()

    await hoard(seen, hold, "")


async def body(seen: Seen) -> None:
    """Send a body without end."""
    start = request(_PUBLISH, _FORM, "Transfer-Encoding: chunked")
    await send_until_closed(seen, start, b"10000\r\n" + b"x" * 65536 + b"\r\n")


async def head(seen: Seen) -> None:
    """Send a head without end."""
    await send_until_closed(seen, request("GET /health")[:-2], b"X: y\r\n" * 1000)


async def trailers(seen: Seen) -> None:
    """Send headers without end behind a body."""
    start = request(_PUBLISH, _FORM, "Transfer-Encoding: chunked", body=b"0\r\n")
    await send_until_closed(seen, start, b"X: y\r\n" * 1000)


ABUSES: list[Callable[[Seen], Awaitable[None]]] = [
    idle, silence, handshakes, never_read, never_read_answers, drip_head, drip_body, drip_frame, streams, publishes,
    forgeries, percent_signs, small_chunks, colons, pipeline, commands, pings, fragments, polls, poll_again, lost_commands, hoard_pings, hoard_requests, body, head, trailers,
]  # fmt: skip


async def main(
    port: int, name: str, clients: int, abuses: Sequence[Callable[[Seen], Awaitable[None]]] = ABUSES
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    (abuse,) = [abuse for abuse in abuses if abuse.__name__ == name]
    seen = Seen(port, clients)
    started = time.monotonic()
    tasks = [asyncio.ensure_future(abuse(seen)) for _ in range(clients)]
    told = asyncio.ensure_future(_run_until_told(seen))
    await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()  # none of them ends by itself but by an error
        task.cancel()
    await asyncio.wait(tasks)
    print(json.dumps(seen | {"seconds": time.monotonic() - started}), flush=True)


async def _run_until_told(seen: Seen) -> None:
    await seen.by_all.wait()
    print(json.dumps(seen), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
