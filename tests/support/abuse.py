"""Abuses of a server as a whole. Each client does one thing again and again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any
from urllib.parse import quote

from websockets.frames import Opcode

from .abuser import (
    _FORM,
    _PUBLISH,
    LOST_COMMANDS,
    LOST_POSTS,
    PATH,
    SECRET,
    STREAM,
    STREAMS,
    Connection,
    Seen,
    command,
    connected,
    drip,
    frame,
    handshake,
    hoard,
    last_look,
    poll_path,
    publish,
    read_answer,
    read_frame,
    request,
    send_until_closed,
    sending,
    stop_reading,
    subscriber,
)

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
    """Subscribe to a busy stream and read nothing."""
    for turn in itertools.count():
        async with subscriber(seen) as (_, writer), connected(seen) as (answers, publisher):
            stop_reading(writer)
            writer.write(command("subscribe", 1, STREAM))
            while not writer.transport.is_closing():
                publisher.write(publish("x" * 60_000))
                await read_answer(answers)
                writer.write(frame(Opcode.PONG))  # the writer notices the end, since it reads nothing
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
    """Send one request again and again, each time on a new connection."""
    for turn in itertools.count():
        async with connected(seen) as (reader, writer):
            with last_look(writer) as look:
                writer.write(data)
                seen[look((await read_answer(reader))[0])] += 1
        if turn == 0:
            seen.started()


async def percent_signs(seen: Seen) -> None:
    """Publish, with a wrong signature, the body that is slowest to decode and sign."""
    body = publish("x", "wrong").partition(b"\r\n\r\n")[2].replace(b"message=x", b"message=" + b"%" * 190_000)
    await repeat(seen, request(_PUBLISH, _FORM, f"Content-Length: {len(body)}", body=body))


async def refused_batches(seen: Seen) -> None:
    """Send, with a wrong signature, the largest batch, which is slow to decode and sign."""
    body = publish("x", "wrong").partition(b"\r\n\r\n")[2] + b"&messages=" + b"%" * 1_048_000
    batch = _PUBLISH.partition("/stream/")[0] + "/batch"
    await repeat(seen, request(batch, _FORM, f"Content-Length: {len(body)}", body=body))


async def small_chunks(seen: Seen) -> None:
    """Send a body in chunks of one byte."""
    await repeat(seen, request(_PUBLISH, _FORM, "Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 200_000))


async def colons(seen: Seen) -> None:
    """Publish to the host that is slowest to check."""
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
    """Send as many frames as the server accepts, and read the answers."""
    async with subscriber(seen) as (reader, writer), sending(writer, sent):
        for turn in itertools.count():
            opcode, _ = await read_frame(reader)
            seen[opcode.name] += 1
            if turn == 0:
                seen.started()


async def commands(seen: Seen) -> None:
    """Send commands without end."""
    await frames(seen, (command("subscribe", 1, "x") + command("unsubscribe", 2, "x")) * 500)


async def pings(seen: Seen) -> None:
    """Send pings without end."""
    await frames(seen, frame(Opcode.PING) * 1000)


async def nested_arrays(seen: Seen) -> None:
    """Send commands of nested arrays without end, and a valid one before ten of them close the connection."""
    nested = frame(Opcode.TEXT, b'["subscribe", 1, "x", ' + b"[[[[]]]]," * 40_000 + b"1]")
    await frames(seen, nested * 9 + command("unsubscribe", 1, "x"))


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
    """Add polling subscribers until there are too many, and continue to try."""
    has_started = False
    async with connected(seen) as (reader, writer):
        while True:
            writer.write(request(f"GET /comet{PATH}?instance=1&callback=f"))
            status, _ = await read_answer(reader)
            seen[status] += 1
            if status == "503" and not has_started:
                has_started = True
                seen.started()


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


async def lost_posts(seen: Seen) -> None:
    """Send the largest commands by extended long polling, and close each connection without an answer."""
    async with connected(seen) as connection:
        secret = (await post(connection, {}))["poll"]
        polling = asyncio.create_task(keep_posting(connection, secret))
        try:
            for turn in itertools.count(1):
                sent = [["subscribe", turn, "x" * 190_000]]
                async with connected(seen) as (_, writer):
                    writer.write(post_request({"poll": secret, "n": 0, "send": sent}))
                    await writer.drain()
                    writer.write_eof()
                seen["lost"] += 1
                if turn == LOST_POSTS:
                    seen.started()
        finally:
            polling.cancel()


def post_request(body: dict[str, object]) -> bytes:
    data = json.dumps(body).encode()
    return request(f"POST /comet{PATH}", f"Content-Length: {len(data)}", body=data)


async def post(connection: Connection, body: dict[str, object]) -> Any:
    reader, writer = connection
    writer.write(post_request(body))
    status, answer = await read_answer(reader)
    assert status == "200", status
    return json.loads(answer)


async def keep_posting(connection: Connection, secret: str) -> None:
    n = 0
    while True:
        n = (await post(connection, {"poll": secret, "n": n}))["n"]


async def keep_polling(connection: Connection, path: str) -> None:
    reader, writer = connection
    while True:
        writer.write(request(f"GET {path}"))
        status, _ = await read_answer(reader)
        assert status == "200", status


async def nested_posts(seen: Seen) -> None:
    """Send commands of nested arrays in polls, each as many as a poll may have."""
    nested: dict[str, object] = {"send": [[[[[]]]]] * 6_000}
    async with connected(seen) as (reader, writer):
        for turn in itertools.count():
            writer.write(post_request(nested))
            seen[(await read_answer(reader))[0]] += 1
            if turn == 0:
                seen.started()


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
