"""uvicorn's HTTP protocol, with the limits on requests that uvicorn leaves open."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

from ...protocol.paths import BATCH_PATH
from ..config import Limits
from ..memory import UNCOUNTED_BYTES, Memory
from ..turnstile import Turnstile
from .reading import READ_BYTES, SharedBufferProtocol

MAX_PIPELINED_REQUESTS = 16
"""How many requests of one connection may wait for the one before them to be answered."""

MAX_PIECES = 1024
PIECE_BYTES = 256
"""A request may arrive in ``MAX_PIECES`` pieces, and in one more for each ``PIECE_BYTES`` that it may have.

A piece is a read, or a part of the body such as a chunk. Each takes the same time, however short it is. TCP
segments of 536 bytes, the shortest that a network must carry, stay below.
"""


def max_pieces(limits: Limits, max_body_bytes: int) -> int:
    """In how many pieces a request may arrive."""
    return MAX_PIECES + (limits.max_header_bytes + max_body_bytes) // PIECE_BYTES


class BoundedHttpProtocol(HttpToolsProtocol, SharedBufferProtocol):
    """One client connection, until it is upgraded or ends.

    A request must arrive within ``limits.request_timeout_s``, headers and body together, counted from the
    connection or from its first byte, and its answer must be read within the same time once it is more than
    the system keeps for the client. A request in too many small pieces is refused. Only a GET without a body
    is upgraded, and not while the answer to the request before it is still on its way; any other request with
    an ``Upgrade`` header is refused if it has a body, and otherwise answered as if it had no such header.

    Parameters:
        limits: those of its server.
        memory: counts what clients hold.
        handshakes: lets those of WebSockets begin.
        read_buffer: what it is read into, shared with others of the same event loop.
        uvicorn: what uvicorn gives.
    """

    subscription_count = 0

    def __init__(
        self, limits: Limits, memory: Memory, handshakes: Turnstile, read_buffer: memoryview, **uvicorn: Any
    ) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._memory = memory
        self._handshakes = handshakes
        self.counted_bytes = 0
        self._unanswered_bytes = 0  # of the requests that have arrived, whole or in part
        self._read_buffer = read_buffer
        self._max_pieces = max_pieces(limits, limits.max_body_bytes)
        self._max_batch_pieces = max_pieces(limits, limits.max_batch_bytes)
        self._is_batch = False
        self._pieces = 0
        self._unfinished_header_bytes = 0
        self._header_count = 0
        self._headers_are_complete = False
        self._is_arriving = False
        self._refusal: tuple[int, str] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reading_deadline: asyncio.TimerHandle | None = None
        self._answered_cycle: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self._cancel_reading_deadline()
        self._forget_unanswered()
        self._memory.forget(self)
        # uvicorn tells the newest request alone, which may not be the one that is being answered.
        if self._answered_cycle is not None and not self._answered_cycle.response_complete:
            self._answered_cycle.disconnected = True
            self._answered_cycle.message_event.set()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self._unanswered_bytes = 0
        if self.counted_bytes or self.transport.get_write_buffer_size() > UNCOUNTED_BYTES:
            self._memory.count(self)

    @property
    def buffered_bytes(self) -> int:
        if self.transport is None or self.transport.is_closing():
            return 0
        # Input beyond a request's limits is discarded.
        limits = self._limits
        most = limits.max_header_bytes + max(limits.max_poll_bytes, limits.max_batch_bytes) + READ_BYTES
        return min(self._unanswered_bytes, most) + self.transport.get_write_buffer_size()

    def shed(self) -> None:
        self._forget_unanswered()
        is_answering = self.cycle is not None and self.cycle.response_started
        if is_answering or self.transport.get_write_buffer_size() > 0:
            self.transport.abort()
        else:
            self._refusal = (503, "Service Unavailable: the server holds too much for its clients")
            self.send_400_response("")

    def _forget_unanswered(self) -> None:
        self._unanswered_bytes = 0
        # Requests refer to each other, so they would keep what they have read until garbage is collected.
        for cycle in (self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None:
                cycle.body.clear()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_deadline = self.loop.call_later(self._limits.request_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_reading_deadline()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()  # to close would wait until it is read
        super().timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        # The parser calls back only with whole headers, and keeps the part of the next one.
        self._unfinished_header_bytes += len(data)
        self._pieces += 1
        self._unanswered_bytes += len(data)
        super().data_received(data)
        if self._unanswered_bytes > UNCOUNTED_BYTES:
            self._memory.count(self)
        if self.transport.is_closing():
            return
        if self._unfinished_header_bytes > self._limits.max_header_bytes:
            self._refuse_headers(f"at most {self._limits.max_header_bytes} bytes are allowed")
            self.send_400_response("")
        elif self._has_too_many_pieces:
            self._refuse_pieces()
            self.send_400_response("")
        # Most requests come whole and need no timer. The parser says nothing of a line break ahead of one.
        elif (self._is_arriving or self._unfinished_header_bytes > 0) and self._deadline is None:
            self._start_deadline()

    def on_message_begin(self) -> None:
        self._pieces = 0
        self._header_count = 0
        self._headers_are_complete = False
        self._is_arriving = True
        self._is_batch = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._headers_are_complete = True
        self._unfinished_header_bytes = 0
        lines = [len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")]
        lines += [len(name) + len(value) + len(": \r\n") for name, value in self.headers]
        if sum(lines) > self._limits.max_header_bytes:
            self._refuse_headers(f"at most {self._limits.max_header_bytes} bytes are allowed")
        # websockets' own parser would refuse this, some releases of it without an answer.
        elif max(lines) > MAX_LINE_LENGTH:
            self._refuse_headers(f"at most {MAX_LINE_LENGTH} bytes are allowed in a line")
        elif len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            self._refusal = (
                429,
                f"Too Many Requests: at most {MAX_PIPELINED_REQUESTS} may wait for the one before them",
            )
        elif self.parser.should_upgrade() and any(map(_announces_body, self.headers)):
            # To the parser, another protocol follows, whether the upgrade happens or not.
            self._refusal = (400, "Bad Request: a request with a body must have no Upgrade header")
        if self._refusal is not None:
            raise ValueError
        self._is_batch = self.url.partition(b"?")[0].endswith(BATCH_PATH.encode())
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Not only once they are complete: one read may hold thousands.
        self._header_count += 1
        if self._header_count > MAX_NUM_HEADERS:
            self._refuse_headers(f"at most {MAX_NUM_HEADERS} headers are allowed")
            raise ValueError
        if not self._headers_are_complete:  # else it comes behind the body, where nobody looks for it
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unfinished_header_bytes = 0
        self._pieces += 1
        if self._has_too_many_pieces:
            self._refuse_pieces()
            raise ValueError
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished_header_bytes = 0
        self._is_arriving = False
        self._cancel_deadline()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._refusal is None:
            super().send_400_response(msg)
            return
        status, reason = self._refusal
        body = f"{reason}\n".encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%s"
            % (status, reason.partition(":")[0].encode(), len(body), body)
        )
        self.transport.close()

    @property
    def _has_too_many_pieces(self) -> bool:
        return self._pieces > (self._max_batch_pieces if self._is_batch else self._max_pieces)

    def _refuse_headers(self, rule: str) -> None:
        self._refusal = (431, f"Request Header Fields Too Large: {rule}")

    def _refuse_pieces(self) -> None:
        self._refusal = (400, "Bad Request: the request came in too many small pieces")

    def _should_upgrade(self) -> bool:
        # The WebSocket's parser takes no header that announces a body, not even an empty one.
        has_length = any(name == b"content-length" for name, _ in self.headers)
        # An upgraded connection leaves this protocol. An unfinished answer would go into the WebSocket, or
        # wait for ever for permission to write.
        is_idle = (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused
        return self.scope.get("method") == "GET" and not has_length and is_idle and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        self.transport.pause_reading()  # what follows is for the WebSocket
        self._handshakes.pass_through(self._upgrade)

    def _upgrade(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.resume_reading()
        super().handle_websocket_upgrade()
        self._unanswered_bytes = 0
        self._memory.forget(self)
        # The WebSocket has its own deadlines and limits.
        self._cancel_reading_deadline()

    def _unsupported_upgrade_warning(self) -> None:
        pass  # the request has been answered without its Upgrade header, as RFC 9110 section 7.8 allows

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(self._limits.request_timeout_s, self._time_out)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_reading_deadline(self) -> None:
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        limit = self._limits.request_timeout_s
        self._refusal = (408, f"Request Timeout: a request must arrive within {limit:g} s")
        self.send_400_response("")


def _announces_body(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
