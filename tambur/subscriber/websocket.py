"""The WebSocket of a subscriber: an event loop in its own thread, behind blocking methods.

TLS demands the event loop. Two threads may not use one OpenSSL connection, and with Python's blocking
sockets one thread would read while another writes. A session ticket that arrived during the write of the
handshake then sometimes broke the connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from ..credentials import host_and_port
from ..errors import SubscriberClosedError
from ..printable import one_line
from ..protocol.messages import HEARTBEAT

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, WebSocketException

    from .connecting import raise_not_connected
except ImportError as error:
    raise ImportError(
        f"subscribing needs {error.name}, which is not installed; pip install 'tambur[subscriber]>=1'",
        name=error.name,
    ) from None

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""The longest frame that is accepted from a server, in bytes."""

CLOSE_TIMEOUT_S = 10.0
"""How long closing waits for the server, in seconds."""

MAX_WAITING_FRAMES = 16
"""How many frames may wait for the program; further ones stay in the connection."""

_HEARTBEAT = HEARTBEAT.decode()

# At DEBUG, websockets logs every frame, tokens included.
_frame_logger = logging.getLogger("tambur.websockets")
_frame_logger.setLevel(logging.INFO)

_T = TypeVar("_T")


class WebSocket:
    """A connection, open once the constructor returns. One thread may use it at a time.

    A connection that nobody closes ends with the last reference to it, or with the process.

    Parameters:
        url: the server's address, with ``ws`` or ``wss``.
        timeout_s: how long connecting may take, in seconds.

    Raises:
        SubscriberClosedError: if the server cannot be reached, refuses or redirects. Once the connection
            is lost, :meth:`send` and :meth:`receive` raise it, too.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._server = host_and_port(url)
        thread = self._thread = _ConnectionThread(url, timeout_s)
        self._end = weakref.finalize(self, thread.end)
        self._end.atexit = False  # the end of the process closes the connection anyway
        try:
            self._connection = thread.opened.result()
        except (OSError, ValueError, WebSocketException) as error:
            thread.join()
            raise_not_connected(url, timeout_s, error)
        except BaseException:  # a KeyboardInterrupt ends the wait, but not the thread
            self._end()
            raise

    def send(self, text: str) -> None:
        """Send a frame."""
        self._call(self._connection.send(text))

    def receive(self, timeout_s: float | None) -> str | bytes:
        """Wait for a frame that is not a heartbeat.

        Parameters:
            timeout_s: in seconds; ``None`` waits without limit.

        Raises:
            TimeoutError: if no frame arrives in time.
        """
        return self._call(self._thread.incoming.take(timeout_s))

    @property
    def heard_at(self) -> float:
        """When the last frame arrived, by the monotonic clock."""
        return self._thread.incoming.heard_at

    def close(self, code: int, *, at_once: bool = False) -> None:
        """Close the connection. Any thread may call this; it ends a :meth:`receive` that waits.

        Parameters:
            code: the close code for the server.
            at_once: whether to close without telling the server, which may no longer be reachable.
        """
        self._thread.closing = (code, at_once)
        self._end()
        self._thread.join()

    def _call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        called = self._thread.start_soon(coroutine)
        try:
            return called.result()
        except ConnectionClosed as error:
            raise _closed(self._server, error) from error
        except concurrent.futures.CancelledError:
            raise _not_connected() from None
        finally:
            called.cancel()  # a KeyboardInterrupt ends the wait, but not the task in the loop


class _ConnectionThread(threading.Thread):
    """Runs the event loop of one connection until :meth:`end`. It is a daemon: Python exits without it.

    Attributes:
        opened: the connection, or the error that prevented it.
        incoming: the frames of the server.
        closing: the close code, and whether the server is not told.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(name="tambur-websocket", daemon=True)
        self.opened: concurrent.futures.Future[ClientConnection] = concurrent.futures.Future()
        self.incoming = _Incoming()
        self.closing = (1000, False)
        self._loop = asyncio.new_event_loop()
        self._holding = self._loop.create_task(self._hold(url, timeout_s))
        # Reentrant, since the garbage collector may call `end` in a thread that holds it.
        self._lock = threading.RLock()
        self._ended = False
        self.start()

    def run(self) -> None:
        try:
            self._loop.run_until_complete(self._holding)
        except asyncio.CancelledError:
            self.opened.cancel()  # without effect on a connection that was open
        except Exception as error:  # for the thread that waits
            if self.opened.done():
                raise
            self.opened.set_exception(error)
        finally:
            with self._lock:
                self._ended = True
            # A caller waits for each coroutine that was started before that.
            self._loop.run_until_complete(_cancel_others())
            self._loop.close()

    async def _hold(self, url: str, timeout_s: float) -> None:
        try:
            connection = await _Connect(
                url,
                open_timeout=timeout_s,
                close_timeout=CLOSE_TIMEOUT_S,
                compression=None,
                max_size=MAX_FRAME_BYTES,
                logger=_frame_logger,
            )
        except asyncio.TimeoutError as error:
            if isinstance(error, OSError):
                raise
            raise TimeoutError from error  # in Python 3.10 another class than that of asyncio
        self.opened.set_result(connection)
        try:
            await self.incoming.fill(connection)  # until `end` cancels it
        finally:
            code, at_once = self.closing
            if at_once:
                connection.transport.abort()
            # The close frame of the server comes behind the messages that were not read.
            discarding = self._loop.create_task(_discard(connection))
            await connection.close(code)
            discarding.cancel()
            # With TLS, Python 3.10 keeps a transport open that only the other side has closed.
            connection.transport.close()

    def start_soon(self, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Run a coroutine in the event loop.

        Raises:
            SubscriberClosedError: if the loop has ended.
        """
        with self._lock:
            if not self._ended:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        raise _not_connected()

    def end(self) -> None:
        """Start to close the connection. Call this once, in any thread; it does not wait."""
        with self._lock:
            if not self._ended:
                self._loop.call_soon_threadsafe(self._holding.cancel)


class _Connect(connect):
    """Connects without following redirects: only the host that the user named may ask for tokens."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Incoming:
    """The frames of a server. Heartbeats are left out: a program that does not receive would have many.

    Attributes:
        heard_at: when the last frame arrived, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.heard_at = time.monotonic()
        self._frames: asyncio.Queue[str | bytes | ConnectionClosed] = asyncio.Queue(MAX_WAITING_FRAMES)

    async def fill(self, connection: ClientConnection) -> NoReturn:
        """Take frames from the connection while there is room for them. This never returns."""
        try:
            while True:
                frame = await connection.recv()
                if frame != _HEARTBEAT:
                    await self._frames.put(frame)
                self.heard_at = time.monotonic()
        except ConnectionClosed as closed:
            await self._frames.put(closed)
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def take(self, timeout_s: float | None) -> str | bytes:
        """Wait for a frame.

        Raises:
            TimeoutError: if no frame arrives in time.
            ConnectionClosed: after the last frame, each time.
        """
        # A cancelled get() loses no frame. asyncio.wait_for might, and asyncio.timeout is not in Python 3.10.
        task = asyncio.current_task()
        assert task is not None
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            task.cancel()

        timer = None if timeout_s is None else asyncio.get_running_loop().call_later(timeout_s, expire)
        try:
            frame = await self._frames.get()
        except asyncio.CancelledError:
            if late:
                raise TimeoutError from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(frame, ConnectionClosed):
            self._frames.put_nowait(frame)
            raise frame
        return frame


async def _discard(connection: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.recv()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _not_connected() -> SubscriberClosedError:
    return SubscriberClosedError("the subscriber is not connected")


def _closed(server: str, error: ConnectionClosed) -> SubscriberClosedError:
    if error.rcvd is None:
        return SubscriberClosedError(f"the connection to {server} was lost")
    code, reason = error.rcvd.code, error.rcvd.reason
    text = f"{server} closed the connection: {code} {one_line(reason)}".rstrip()
    return SubscriberClosedError(text, code=code, reason=reason)
