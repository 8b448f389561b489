"""python-socketio on uvicorn: what is posted is emitted to every subscriber. Prints its port."""

from __future__ import annotations

import socket
from typing import Any

import socketio
import uvicorn

SUBSCRIBERS = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


async def publish(_scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    await SUBSCRIBERS.emit("message", body.decode())
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    application = socketio.ASGIApp(SUBSCRIBERS, publish)
    config = uvicorn.Config(application, log_config=None, lifespan="off", timeout_keep_alive=65)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
