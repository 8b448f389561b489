"""Subscribers of ours that stay connected, thousands in this process; what they cost a server is measured."""

from __future__ import annotations

import json
import resource
import select
import socket
import time
from urllib.parse import quote

from .servers import API_KEY, APP_ID

_TIMEOUT_S = 30
_PING, _PONG = 0x89, b"\x8a\x80\0\0\0\0"


def _connect(port: int) -> socket.socket:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)


class WebSocket:
    """A subscriber over a WebSocket, connected once it is made."""

    def __init__(self, port: int) -> None:
        self.socket = _connect(port)
        self._buffer = b""
        lines = [
            f"GET /{API_KEY}/{APP_ID} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise RuntimeError(f"the server refuses a subscriber: {head!r}")
        self.subscriber_id = self._frame().removeprefix("id:")

    def _read(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError("the server has closed a connection")
        self._buffer += data

    def _need(self, length: int) -> None:
        while len(self._buffer) < length:
            self._read()

    def _frame(self) -> str:
        """The next text frame, of at most 64 KiB."""
        self._need(2)
        start, length = 2, self._buffer[1]
        if length == 126:
            self._need(4)
            start, length = 4, int.from_bytes(self._buffer[2:4], "big")
        self._need(start + length)
        text, self._buffer = self._buffer[start : start + length], self._buffer[start + length :]
        return text.decode()

    def command(self, *array: str) -> None:
        """Send a command, and wait until the server has done it.

        Raises:
            RuntimeError: it has refused.
        """
        word, *arguments = array
        text = json.dumps([word, 1, *arguments]).encode()
        head = (
            bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else b"\x81\xfe" + len(text).to_bytes(2, "big")
        )
        self.socket.sendall(head + b"\0\0\0\0" + text)  # masked with zeros, which changes nothing
        while (answer := json.loads(self._frame()))[0] != "ack":
            pass
        if answer[2] != "ok":
            raise RuntimeError(f"{array} was answered {answer}")

    def wait(self) -> None:
        """Nothing has to be done to go on being connected but to answer pings."""

    def close(self) -> None:
        self.socket.close()


class LongPoll:
    """A subscriber that polls, over one connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.socket = _connect(port)
        self.subscriber_id = ""
        self.subscriber_id = self._ask("").partition("id:")[2].partition('"')[0]

    def _send(self, query: str) -> None:
        path = f"/comet/{API_KEY}/{APP_ID}" + (f"/{self.subscriber_id}" if self.subscriber_id else "")
        line = f"GET {path}?instance=1&callback=f{query} HTTP/1.1"
        self.socket.sendall(f"{line}\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def _ask(self, query: str) -> str:
        self._send(query)
        answer = b""
        while not answer.endswith(b")"):
            data = self.socket.recv(65536)
            if not data:
                raise RuntimeError(f"the server has closed a connection: {answer!r}")
            answer += data
        return answer.decode()

    def command(self, *array: str) -> None:
        word, *arguments = array
        answer = self._ask(f"&data={quote(json.dumps([word, 1, *arguments]))}")
        if '"ok"' not in answer:
            raise RuntimeError(f"{array} was answered {answer}")

    def wait(self) -> None:
        """Leave a poll waiting, as subscribers do."""
        self._send("")

    def close(self) -> None:
        """End the session, which would last for ``ping_timeout_s`` otherwise."""
        self.socket.close()
        with _connect(self._port) as self.socket:
            self._send("&data=fin")
            if not self.socket.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("the session was gone already")


def answer_pings(clients: list[WebSocket], seconds: float) -> int:
    """Answer what pings come for so long; returns how many."""
    poll = select.epoll()
    sockets = {client.socket.fileno(): client.socket for client in clients}
    for number in sockets:
        poll.register(number, select.EPOLLIN)
    count = 0
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for number, _ in poll.poll(left):
            pings = sockets[number].recv(65536)
            if not pings or pings[0] != _PING:
                raise RuntimeError(f"not a ping: {pings!r}")
            sockets[number].sendall(_PONG * (len(pings) // 2))
            count += len(pings) // 2
    poll.close()
    return count
