"""The server's sockets, byte by byte."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import time
from typing import Any, Protocol
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from tambur import Tambur

from .app import API_KEY, APP_ID, SECRET

TIMEOUT_S = 60.0
"""How long a socket waits, in seconds: only a server that hangs lets it pass."""

MIN_BUFFER = 2304
"""The smallest receive buffer that Linux allows, in bytes."""

SUBSCRIBE_PATH = f"/{API_KEY}/{APP_ID}"


class Listening(Protocol):
    """A server, in this process or another."""

    @property
    def url(self) -> str: ...


def connect(server: Listening, *, receive_buffer: int | None = None) -> socket.socket:
    """Connect to a server, with TLS if its URL says so.

    Parameters:
        receive_buffer: how many bytes the kernel keeps for a client that does not read; ``None`` for its default.
    """
    url = urlsplit(server.url)
    assert url.hostname is not None
    assert url.port is not None
    connection = socket.socket(socket.AF_INET6 if ":" in url.hostname else socket.AF_INET)
    try:
        connection.settimeout(TIMEOUT_S)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect((url.hostname, url.port))
    except OSError:
        connection.close()
        raise
    if url.scheme == "http":
        return connection
    return ssl.create_default_context().wrap_socket(connection, server_hostname=url.hostname)


class Answer:
    """An HTTP answer: its status, headers with lower-case names, and body."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    chunks = []
    try:
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        pass  # it had something unread when it closed
    return b"".join(chunks)


def begin_two(*polls: tuple[Listening, bytes]) -> tuple[Answer, socket.socket]:
    """Send two polls, of which the server answers one. Over two ways, that may be any of them.

    Returns:
        The answer, and the connection whose poll waits.
    """
    connections = [connect(server) for server, _ in polls]
    for connection, (_, request) in zip(connections, polls, strict=True):
        connection.sendall(request)
    (answered, *_), _, _ = select.select(connections, [], [], TIMEOUT_S)
    connections.remove(answered)
    with answered:
        return read_answer(answered), connections[0]


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer of a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(1)
        assert chunk, f"the connection ended after {data!r}"
        data += chunk
    answer = Answer(data)
    length = int(answer.headers.get("content-length", "0"))
    while len(answer.body) < length:
        answer.body += connection.recv(length - len(answer.body))
    return answer


def ask(server: Listening, data: bytes) -> Answer:
    """Send bytes, and read one answer."""
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):  # it may refuse a request before it has read all of it
            connection.sendall(data)
        return read_answer(connection)


def wait_until_served(server: Listening) -> None:
    """Wait until a server that had too many connections has noticed that some have ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        # One too many is answered 503, or reset before it has sent its request.
        with contextlib.suppress(OSError, AssertionError):
            if ask(server, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").status == 200:
                return
        assert time.monotonic() < deadline


def handshake(path: str = SUBSCRIBE_PATH, *headers: str, method: str = "GET", host: str = "h") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def signed(server: Listening, stream: str, message: str, **changes: Any) -> bytes:
    """A whole signed request to publish a message.

    Parameters:
        changes: ``headers`` to add, or to leave out where the value is ``None``; ``line``, the request line.
    """
    with Tambur(API_KEY, APP_ID, SECRET, server.url) as tambur:
        prepared = tambur.build_request(stream, message, int(time.time()), str(time.monotonic_ns()))
    assert isinstance(prepared.body, str)
    headers = {
        "Host": server.url.removeprefix("http://"),
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": str(len(prepared.body)),
    } | changes.pop("headers", {})
    line = changes.pop("line", f"POST {prepared.path_url} HTTP/1.1")
    assert not changes
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), "", ""]
    return "\r\n".join(lines).encode() + prepared.body.encode()


class Socket:
    """A WebSocket client that shows each frame, and can be made to send any."""

    def __init__(
        self, server: Listening, path: str = SUBSCRIBE_PATH, *, receive_buffer: int | None = None
    ) -> None:
        self.connection = connect(server, receive_buffer=receive_buffer)
        self.protocol = ClientProtocol(parse_uri(f"ws{server.url.removeprefix('http')}{path}"))
        self.protocol.send_request(self.protocol.connect())
        self.flush()
        self.waiting: list[Any] = []
        response = self.next_event()
        assert isinstance(response, Response)
        assert response.status_code == 101
        self.greeting = self.text()

    def __enter__(self) -> Socket:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    @property
    def subscriber_id(self) -> str:
        return self.greeting.removeprefix("id:")

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.connection.sendall(data)

    def next_event(self) -> Any:
        while not self.waiting:
            data = self.connection.recv(65536)
            assert data, f"the server closed: {self.protocol.close_rcvd}"
            self.protocol.receive_data(data)
            self.waiting += self.protocol.events_received()
            self.flush()  # pongs
        return self.waiting.pop(0)

    def frame(self) -> Frame:
        event = self.next_event()
        assert isinstance(event, Frame)
        return event

    def text(self) -> str:
        """The next text frame; pings between are answered and passed over."""
        while (frame := self.frame()).opcode is Opcode.PING:
            pass
        assert frame.opcode is Opcode.TEXT, frame
        assert frame.fin
        return bytes(frame.data).decode()

    def json(self) -> Any:
        return json.loads(self.text())

    def send(self, *array: Any) -> None:
        self.send_text(json.dumps(array).encode())

    def send_text(self, data: bytes) -> None:
        self.protocol.send_text(data)
        self.flush()

    def command(self, *array: Any) -> Any:
        """Send a command, and read the next event."""
        self.send(*array)
        return self.json()

    def close_code(self) -> int:
        """Read up to the close frame."""
        while self.frame().opcode is not Opcode.CLOSE:
            pass
        assert self.protocol.close_rcvd is not None
        return self.protocol.close_rcvd.code
