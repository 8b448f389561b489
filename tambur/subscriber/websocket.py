"""The WebSocket of a subscriber: for one thread at a time, kept alive by an event loop in another.

The event loop is there for TLS. One thread waiting to read and another one writing may not share a
connection of OpenSSL, and with Python's blocking sockets they would: now and then a session ticket that came
while the handshake's request was written broke the connection.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from ..errors import SubscriberClosedError

try:
    import anyio
    from anyio.from_thread import start_blocking_portal
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
except ImportError as error:
    raise ImportError(
        f"subscribing needs {error.name}, which is not installed; pip install 'tambur[subscriber]'",
        name=error.name,
    ) from None

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""The longest frame that is accepted from a server."""

# At DEBUG, websockets would write down every frame, and with them the tokens.
_frame_logger = logging.getLogger("tambur.websockets")
_frame_logger.setLevel(logging.INFO)

_T = TypeVar("_T")


class WebSocket:
    """Connected once the constructor returns.

    Parameters:
        url: where to.
        timeout_s: how long connecting may take, in seconds.

    Raises:
        SubscriberClosedError: if the server cannot be reached, or refuses; so do all methods but
            :meth:`close` once the connection is lost.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        with contextlib.ExitStack() as opened:
            self._portal = opened.enter_context(start_blocking_portal(name="tambur-websocket"))
            try:
                connected = self._portal.wrap_async_context_manager(_connected(url, timeout_s))
                self._connection = opened.enter_context(connected)
            except InvalidStatus as error:
                status, body = error.response.status_code, error.response.body or b""
                raise SubscriberClosedError(
                    f"{url} answered {status}: {body.decode('utf-8', 'replace').strip()}", code=status
                ) from error
            except (OSError, InvalidHandshake, WebSocketException) as error:
                # Of this one asyncio says "Connect call failed", and the address once more.
                why = "connection refused" if isinstance(error, ConnectionRefusedError) else error
                raise SubscriberClosedError(f"cannot connect to {url}: {why}") from error
            self._opened = opened.pop_all()

    def send(self, text: str) -> None:
        """Send a frame."""
        self._call(self._connection.send, text)

    def receive(self, timeout_s: float | None) -> str | bytes:
        """Wait for a frame.

        Parameters:
            timeout_s: in seconds; ``None`` waits for as long as it takes.

        Raises:
            TimeoutError: if there is none within the timeout.
        """
        return self._call(self._receive, timeout_s)

    def close(self) -> None:
        """End the connection. Any thread may call it, once; a :meth:`receive` that waits is ended."""
        self._opened.close()

    async def _receive(self, timeout_s: float | None) -> str | bytes:
        with anyio.fail_after(timeout_s):
            return await self._connection.recv()

    def _call(self, function: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
        try:
            called = self._portal.start_task_soon(function, *arguments)
        except RuntimeError:  # another thread has closed it
            raise SubscriberClosedError("the subscriber is not connected") from None
        try:
            return called.result()
        except ConnectionClosed as error:
            raise _closed(error) from error
        finally:
            called.cancel()  # where a KeyboardInterrupt ended the waiting


@contextlib.asynccontextmanager
async def _connected(url: str, timeout_s: float) -> AsyncIterator[ClientConnection]:
    async with connect(
        url, open_timeout=timeout_s, compression=None, max_size=MAX_FRAME_BYTES, logger=_frame_logger
    ) as connection:
        yield connection
    # With TLS, Python 3.10 takes a transport for open that was closed by the other side alone.
    connection.transport.close()


def _closed(error: ConnectionClosed) -> SubscriberClosedError:
    if error.rcvd is None:
        return SubscriberClosedError("the connection to the server was lost")
    code, reason = error.rcvd.code, error.rcvd.reason
    return SubscriberClosedError(
        f"the server ended the connection: {code} {reason}".rstrip(), code=code, reason=reason
    )
