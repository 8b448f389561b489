"""Abuses that the other subscribers of a stream feel.

In most of them one client abuses, and the others are an audience that behaves. The app is the bystander's,
which issues tokens to all.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from urllib.parse import quote

from websockets.frames import Opcode

from tambur.protocol.tokens import TokenSigner

from .abuser import (
    STREAMS,
    Connection,
    Seen,
    command,
    connected,
    frame,
    greet,
    hoard,
    poll_path,
    read_answer,
    read_frame,
    request,
    sending,
)
from .app import API_KEY, APP_ID, SECRET

SIGNER = TokenSigner(API_KEY, APP_ID, SECRET)
DIRECT_BYTES = 60_000
AUDIENCE_IS_THERE = asyncio.Event()

_numbers = itertools.count()


@contextlib.asynccontextmanager
async def subscriber(seen: Seen) -> AsyncIterator[tuple[Connection, str]]:
    """A subscriber of the stream, and its id."""
    async with connected(seen) as (reader, writer):
        subscriber_id = await greet(reader, writer, f"/{API_KEY}/{APP_ID}")
        writer.write(command("subscribe", 1, seen.stream))
        assert await read_ack(reader) == "ok"
        yield (reader, writer), subscriber_id


async def read_ack(reader: asyncio.StreamReader) -> str:
    """Read up to the next ack; returns its result."""
    while True:
        opcode, data = await read_frame(reader)
        if opcode is Opcode.CLOSE:
            raise ConnectionAbortedError(data)
        match json.loads(data):
            case ["ack", _, result]:
                return str(result)


def set_mode(mode: str, subscriber_id: str, user_id: str, stream: str) -> bytes:
    token = getattr(SIGNER, mode)(stream, user_id, subscriber_id)
    return command("set_mode", 2, mode, stream, user_id, token)


async def be_audience(seen: Seen, *modes: str) -> None:
    """Subscribe with some modes, then read everything."""
    async with subscriber(seen) as ((reader, writer), subscriber_id):
        for mode in modes:
            writer.write(set_mode(mode, subscriber_id, subscriber_id, seen.stream))
            assert await read_ack(reader) == "ok"
        seen.started()
        if seen.starting == 1:
            AUDIENCE_IS_THERE.set()
        while await reader.read(65536):
            pass
        raise AssertionError("the audience was cut off")


async def send_without_end(seen: Seen, connection: Connection, sent: bytes, effect: str = "ok") -> None:
    """Send as fast as the server reads, and count the results. The client has started once the effect is among them."""
    reader, writer = connection
    has_started = False
    async with sending(writer, sent):
        while True:
            result = await read_ack(reader)
            seen[result] += 1
            if result == effect and not has_started:
                has_started = True
                seen.started()


async def toggle_presence(seen: Seen) -> None:
    """Join a room full of users and leave it, again and again."""
    if next(_numbers):
        await be_audience(seen, "presence")
    await AUDIENCE_IS_THERE.wait()
    async with subscriber(seen) as (connection, subscriber_id):
        toggle = set_mode("presence", subscriber_id, "toggler", seen.stream) + command(
            "unset_mode", 3, "presence", seen.stream
        )
        await send_without_end(seen, connection, toggle * 10)


async def resubscribe(seen: Seen) -> None:
    """Unsubscribe from a stream and subscribe to it, again and again, without any token."""
    if next(_numbers):
        await be_audience(seen)
    await AUDIENCE_IS_THERE.wait()
    async with subscriber(seen) as (connection, _):
        again = command("unsubscribe", 2, seen.stream) + command("subscribe", 3, seen.stream)
        await send_without_end(seen, connection, again * 100)


async def direct_messages(seen: Seen) -> None:
    """Send large direct messages to nobody."""
    async with subscriber(seen) as (connection, subscriber_id):
        reader, writer = connection
        writer.write(set_mode("direct", subscriber_id, "sender", seen.stream))
        assert await read_ack(reader) == "ok"
        message = command("direct", 3, seen.stream, "nobody", "x" * DIRECT_BYTES)
        await send_without_end(seen, connection, message, "rate_limited")


async def ghosts(seen: Seen) -> None:
    """Join a room by long polling, and let the waiting poll break, again and again."""
    room = f"{seen.stream} {next(_numbers)}"
    async with connected(seen) as (reader, writer):
        observer_id = await greet(reader, writer, f"/{API_KEY}/{APP_ID}")
        writer.write(command("subscribe", 1, room))
        writer.write(set_mode("presence", observer_id, "observer", room))
        for turn in itertools.count():
            user_id = f"ghost {turn}"
            await haunt(seen, room, user_id)
            await read_until(reader, ["msg", room, "presence", [user_id, "down"]])
            seen["down"] += 1
            if turn == 0:
                seen.started()


async def haunt(seen: Seen, room: str, user_id: str) -> None:
    """Join, poll until no more events arrive, and vanish while the server holds a poll."""
    path = await poll_path(seen, f"/{API_KEY}/{APP_ID}")
    subscriber_id = path.rpartition("/")[2].partition("?")[0]
    token = SIGNER.presence(room, user_id, subscriber_id)
    async with connected(seen) as (reader, writer):
        for array in (["subscribe", 1, room], ["set_mode", 2, "presence", room, user_id, token]):
            writer.write(request(f"GET {path}&data={quote(json.dumps(array))}"))
            await read_answer(reader)
        poll = request(f"GET {path}")
        writer.write(poll)
        await read_answer(reader)  # the observer is present
        writer.write(poll)
        await writer.drain()
        async with connected(seen) as (answers, asking):
            # The server reads connections in turns, so it has the poll before it answers this.
            asking.write(request("GET /health"))
            await read_answer(answers)


async def read_until(reader: asyncio.StreamReader, wanted: list[object]) -> None:
    while True:
        opcode, data = await read_frame(reader)
        if opcode is Opcode.TEXT and json.loads(data) == wanted:
            return


async def hoard_streams(seen: Seen) -> None:
    """Subscribe to the stream, and to as many others as allowed, with the largest names."""
    number = next(_numbers)

    async def hold(connection: Connection) -> None:
        reader, writer = connection
        names = [seen.stream] + [f"{number} {i} ".ljust(200, "\U0001f600") for i in range(STREAMS - 1)]
        for handle, name in enumerate(names, 1):
            writer.write(command("subscribe", handle, name))
        for _ in names:
            await read_ack(reader)

    await hoard(seen, hold, f"/{API_KEY}/{APP_ID}")


async def hoard_messages(seen: Seen) -> None:
    """Subscribe to the stream, and send fragments of a message that does not end."""

    async def hold(connection: Connection) -> None:
        reader, writer = connection
        writer.write(command("subscribe", 1, seen.stream))
        await read_ack(reader)
        writer.write(frame(Opcode.TEXT, b"x" * 200_000, fin=False))
        writer.write(frame(Opcode.CONT, b"x" * 190_000, fin=False)[:-1])
        await writer.drain()

    await hoard(seen, hold, f"/{API_KEY}/{APP_ID}")
