"""The WebSocket: section 4 of the protocol over RFC 6455, which the websockets library parses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from ...protocol import close_codes
from ..config import Config
from ..connection import Connection
from ..extended_hub import ExtendedHub
from ..memory import UNCOUNTED_BYTES
from ..outbox import Batch
from .handshake import Handshakes
from .reading import SharedBufferProtocol

CLOSE_TIMEOUT_S = 1.0
"""How long a closed connection may take to send the rest and the closing handshake, in seconds."""

FRAMES_IN_A_ROW = 32
"""After how many frames of a subscriber all others have their turn."""

PARSED_BYTES = 512
"""How much is parsed before frames are counted, in bytes: up to 85 may be in it."""

_parser_logger = logging.getLogger("tambur.server.websockets")
_parser_logger.setLevel(logging.ERROR)  # a line for each connection would be too much


@dataclass(frozen=True)
class Context:
    """The shared state of all connections of a server."""

    config: Config
    handshakes: Handshakes
    hub: ExtendedHub
    read_buffer: memoryview


class WebSocket(SharedBufferProtocol):
    """One subscriber's connection, from the handshake on; also its outbox.

    Parameters:
        context: the state shared with other connections.
        server_state: uvicorn's, which knows the connections that a shutdown must end.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_ending",
        "_fragments",
        "_heard_at",
        "_loop",
        "_partial_bytes",
        "_peers",
        "_protocol",
        "_timer",
        "_transport",
        "_turn",
        "_unparsed",
        "counted_bytes",
        "written_at",
    )

    can_extend = True

    _transport: asyncio.Transport

    def __init__(self, context: Context, *, server_state: ServerState, **_: Any) -> None:
        limits = context.config.limits
        self._context = context
        self._read_buffer = context.read_buffer
        self._peers: set[Any] = server_state.connections
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=limits.max_frame_bytes, logger=_parser_logger)
        self._partial_bytes = 0  # what the parser has of the next frame
        self._connection: Connection | None = None
        self._fragments = bytearray()  # a list would take thirty times as much, of fragments of two bytes
        # Once true, only the closing handshake is sent, and input is ignored.
        self._ending = False
        self._heard_at = self.written_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        # Received bytes that must wait, and the turn that parses them. Until then nothing is read.
        self._unparsed = b""
        self._turn: asyncio.Handle | None = None
        self.counted_bytes = 0

    # Callbacks of asyncio and uvicorn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peers.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._ending = True
        self._peers.discard(self)
        self._forget_unread()
        self._context.hub.memory.forget(self)
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()
        if self._connection is not None:
            self._connection.close()

    def shutdown(self) -> None:
        """The server stops."""
        self.close(close_codes.GOING_AWAY, "the server is shutting down")

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        if self._turn is None:
            self._parse_some()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    # Reading, in turns: a thousand frames fit into one read, and each takes its time.

    def _parse_some(self) -> None:
        self._turn = None
        data = memoryview(self._unparsed)
        count = 0
        while data and count < FRAMES_IN_A_ROW:
            self._protocol.receive_data(bytes(data[:PARSED_BYTES]))
            data = data[PARSED_BYTES:]
            self._partial_bytes += PARSED_BYTES
            for event in self._protocol.events_received():
                self._partial_bytes = 0
                count += 1
                if isinstance(event, Request):
                    self._shake_hands(event)
                    continue
                frame = cast(Frame, event)
                if not self._ending:
                    self._receive(frame)
                frame.data = b""  # the parser refers to the frame until the next one is whole
        self._unparsed = bytes(data)
        if count > 0:  # only complete frames count as activity
            self._heard_at = self._loop.time()
        self._flush()
        self._require_reading()  # of the answers to its pings, too
        if self.counted_bytes or self.buffered_bytes > UNCOUNTED_BYTES:
            self._context.hub.memory.count(self)
        self._read_on()

    def _forget_unread(self) -> None:
        self._unparsed = b""
        self._partial_bytes = 0
        self._fragments.clear()
        # The parser refers to itself, so it would keep what it has read until garbage is collected.
        with contextlib.suppress(EOFError):  # it has had the end of the stream already
            self._protocol.receive_eof()

    def _read_on(self) -> None:
        """Parse the rest, or read more, once it is this subscriber's turn."""
        if self._turn is not None or self._transport.is_closing():
            return
        rest_s = 0.0
        if self._connection is not None and not self._ending:
            if self._connection.is_busy:
                self._transport.pause_reading()
                return  # until it has drained
            rest_s = self._connection.rest_s
        if rest_s > 0:
            self._turn = self._loop.call_later(rest_s, self._parse_some)
        elif self._unparsed:
            self._turn = self._loop.call_soon(self._parse_some)
        if self._turn is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _shake_hands(self, request: Request) -> None:
        response, app = self._context.handshakes.answer(request, self._protocol)
        self._protocol.send_response(response)
        if self._protocol.state is not State.OPEN:
            self._flush()
            self._end()
            return
        assert app is not None  # else it was refused
        hub, limits = self._context.hub, self._context.config.limits
        subscriber_id = hub.new_subscriber_id()
        self._flush(_encode(b"id:" + subscriber_id.encode()))
        self._connection = Connection(subscriber_id, app, hub, self, limits)
        request.headers.clear()  # 1.5 KB, which the parser would keep while the connection is open
        self._schedule_ping()

    # Frames.

    def _receive(self, frame: Frame) -> None:
        assert self._connection is not None  # no frame comes before the handshake
        if not frame.fin or frame.opcode not in {Opcode.TEXT, Opcode.CONT}:
            self._connection.count_frame()
        match frame.opcode:
            case Opcode.TEXT | Opcode.CONT:
                if not frame.fin or self._fragments:
                    self._fragments += frame.data
                if frame.fin:
                    data = bytes(self._fragments or frame.data)
                    self._fragments.clear()
                    self._receive_text(data)
            case Opcode.BINARY:
                self.close(close_codes.UNSUPPORTED_DATA, "binary frames are not understood")
            case Opcode.CLOSE:
                assert self._protocol.close_rcvd is not None  # the parser has read it
                self._end(self._protocol.close_rcvd.code)

    def _receive_text(self, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.close(close_codes.INVALID_DATA, "a text frame must be UTF-8")
            return
        assert self._connection is not None  # no frame comes before the handshake
        self._connection.receive(text)

    def _flush(self, more: bytes = b"") -> None:
        """Write what the parser has to send, and more bytes after it."""
        parts = self._protocol.data_to_send()
        if data := b"".join(parts) + more:
            self._transport.write(data)
        if b"" in parts:  # the end
            self._end()
            # The other side closes once it has read this far; to close with something of it unread
            # would discard data that it has not read yet.
            if self._transport.can_write_eof():
                try:
                    self._transport.write_eof()
                except OSError:  # it was reset, which shows only once something is read or written
                    self._transport.abort()
            else:
                self._transport.close()

    # Callbacks of the connection and the hub

    name = "websocket"

    def write(self, batch: Batch) -> None:
        if self._ending:
            return
        data = batch.encoded
        if data is None:
            data = batch.encoded = b"".join([_encode(event) for event in batch.events])
            batch.encoded_at = self._loop.time()
        self._transport.write(data)
        self.written_at = batch.encoded_at
        self._require_reading()

    @property
    def is_open(self) -> bool:
        return not self._ending

    @property
    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def _require_reading(self) -> None:
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes <= UNCOUNTED_BYTES or self._ending or self._connection is None:
            return
        if unsent_bytes > self._context.config.limits.max_unsent_bytes:
            self._connection.drop_slow_subscriber()
        else:
            self._context.hub.memory.count(self)

    @property
    def buffered_bytes(self) -> int:
        unread_bytes = len(self._unparsed) + self._partial_bytes + len(self._fragments)
        queued_bytes = self._connection.queued_bytes if self._connection is not None else 0
        return unread_bytes + queued_bytes + self._transport.get_write_buffer_size()

    @property
    def subscription_count(self) -> int:
        return self._connection.subscription_count if self._connection is not None else 0

    def shed(self) -> None:
        self.close(close_codes.TRY_AGAIN_LATER, "the server holds too much for its clients")
        if self.counted_bytes:
            self._transport.abort()
            self._forget_unread()

    def write_ack(self, event: bytes) -> None:
        self.write(Batch((event,)))

    def drained(self) -> None:
        if self.counted_bytes:
            self._context.hub.memory.count(self)
        if not self._ending:
            self._read_on()

    def close(self, code: int, reason: str) -> None:
        if self._ending:
            return
        try:
            self._protocol.send_close(code, reason)
        except InvalidState:  # the handshake is not over, or failed
            self._transport.abort()
        self._flush()
        self._end(code)

    # Pings and closing

    def _end(self, code: int | None = None) -> None:
        """Give the closing handshake its time, then cut it short.

        Parameters:
            code: the close code; ``None`` without a close frame.
        """
        if self._ending:
            return
        self._ending = True
        self._fragments.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)
        if self._connection is not None:
            # Not immediately: the hub may be in the middle of writing to all of a stream's outboxes.
            self._loop.call_soon(self._connection.close, code)
        if self._turn is not None:  # the other side's goodbye is still to come, and need not rest
            self._turn.cancel()
            self._turn = None
        self._read_on()

    def _schedule_ping(self) -> None:
        limits = self._context.config.limits
        silent_s = self._loop.time() - self._heard_at
        delay_s = min(limits.ping_interval_s, limits.ping_timeout_s - silent_s)
        self._timer = self._loop.call_later(delay_s, self._ping)

    def _ping(self) -> None:
        if self._loop.time() - self._heard_at >= self._context.config.limits.ping_timeout_s:
            self._ending = True
            self._transport.abort()
            return
        self._protocol.send_ping(b"")
        self._flush()
        self._schedule_ping()


def _encode(event: bytes) -> bytes:
    return Frame(Opcode.TEXT, event).serialize(mask=False)
