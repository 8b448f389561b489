"""websockets.broadcast: what is posted to the second port goes to every subscriber at the first. Prints both."""

from __future__ import annotations

import asyncio
import contextlib

from websockets.asyncio.server import ServerConnection, broadcast, serve


async def main() -> None:
    subscribers: set[ServerConnection] = set()

    async def subscribe(connection: ServerConnection) -> None:
        subscribers.add(connection)
        await connection.send("subscribed")
        await connection.wait_closed()
        subscribers.discard(connection)

    async def publish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                broadcast(subscribers, (await reader.readexactly(length)).decode())
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with (
        serve(subscribe, "127.0.0.1", 0, backlog=2048) as websockets,
        await asyncio.start_server(publish, "127.0.0.1", 0) as publishers,
    ):
        ports = [server.sockets[0].getsockname()[1] for server in (websockets, publishers)]
        print(*ports, sep="\n", flush=True)
        await publishers.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
