"""Subscribers in this process that resume as tambur.js does, thousands of them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

from .servers import API_KEY, APP_ID

_HANDSHAKE = (
    f"GET /{API_KEY}/{APP_ID} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()

# Of tambur.js.
_CONNECT_TIMEOUT_S, _FIRST_WAIT_S, _MAX_WAIT_S = 10, 0.5, 30


class Subscriber:
    """A subscriber of one stream.

    Parameters:
        options: makes the options of the subscribe from the subscriber ID; ``None`` for none.

    Attributes:
        is_extended: whether it extends its connection, and resumes its session if it had one.
        received: the numbers of its messages.
        resumed_at: when it had resumed, by the monotonic clock.
        failures: its failed attempts to connect, and resumes that the server refused or called incomplete.
    """

    def __init__(
        self,
        port: int,
        stream: str,
        *,
        is_extended: bool = True,
        options: Callable[[str], dict[str, Any]] | None = None,
    ) -> None:
        self.port, self.stream, self.is_extended = port, stream, is_extended
        self._options = options or (lambda _: {})
        self.received: list[int] = []
        self.resumed_at: float | None = None
        self.failures = 0
        self._session: dict[str, str] = {}
        self._since: dict[str, str] = {}

    async def connect(self) -> None:
        """Connect and subscribe, and receive what was missed."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writer.write(_HANDSHAKE)
        await self._reader.readuntil(b"\r\n\r\n")
        greeting = await self._frame()
        if not self.is_extended:
            await self._ask("subscribe", 1, self.stream)
        else:
            was_known = bool(self._session)
            answer = await self._ask("hello", 1, self._session)
            self.failures += answer["resumed"] is not was_known
            self._session = {"session": answer["session"], "since": answer["position"]}
            options = self._options(greeting.removeprefix(b"id:").decode())
            answer = await self._ask("subscribe", 2, self.stream, {**options, **self._since})
            self.failures += not answer["complete"]
            self._since = self._since or {"since": answer["position"]}
            if was_known:
                self.resumed_at = time.monotonic()

    def cut(self) -> None:
        """Lose the connection."""
        self._writer.transport.abort()

    async def stay(self) -> None:
        """Receive until this is cancelled. Whenever the connection is lost, resume."""
        attempt = 0
        while True:
            try:
                if attempt:
                    await asyncio.wait_for(self.connect(), _CONNECT_TIMEOUT_S)
                attempt = 0
                while True:
                    await self._frame()
            except (OSError, EOFError, asyncio.TimeoutError):
                self.cut()
                self.failures += attempt > 0
                attempt += 1
                longest_s = min(_FIRST_WAIT_S * 2 ** (attempt - 1), _MAX_WAIT_S)
                await asyncio.sleep(longest_s * (0.5 + random.random() / 2))  # noqa: S311 - as tambur.js

    async def _ask(self, *command: Any) -> Any:
        self._send(1, json.dumps(command).encode())
        while (answer := await self._frame())[0] != "ack":
            pass
        if answer[2] != "ok":
            raise ConnectionError(f"the server answered {answer}")
        return answer[-1]

    def _send(self, opcode: int, data: bytes) -> None:
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self._writer.write(bytes([0x80 | opcode]) + size + bytes(4) + data)  # a mask of zeros

    async def _frame(self) -> Any:
        """The next text frame, once its content has been noted."""
        while True:
            first, size = await self._reader.readexactly(2)
            if size > 125:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            data = await self._reader.readexactly(size)
            if first == 0x81:
                break
            if first == 0x89:
                self._send(10, data)
        frame: Any = data if data.startswith(b"id:") else json.loads(data)
        if frame[0] == "msg" and frame[2] != "presence":
            self.received.append(int(frame[3][1:10]))
            self._since = {"since": frame[4]}
        elif frame[0] == "session":
            self._session["session"] = frame[1]
        return frame


async def connect_all(subscribers: list[Subscriber], *, at_once: int = 200) -> None:
    """Connect them, so many at once. The more, the more memory the server keeps for the next time."""
    for first in range(0, len(subscribers), at_once):
        await asyncio.gather(*(subscriber.connect() for subscriber in subscribers[first : first + at_once]))
