"""The WebSocket of a subscriber: an event loop in a thread of its own, behind blocking methods.

TLS demands the event loop. Two threads may not use one OpenSSL connection, and with Python's blocking
sockets one thread would read while another writes. A session ticket that arrived during the write of the
handshake then sometimes broke the connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from ..errors import SubscriberClosedError
from ..printable import one_line

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, WebSocketException
except ImportError as error:
    raise ImportError(
        f"subscribing needs {error.name}, which is not installed; pip install 'tambur[subscriber]>=1'",
        name=error.name,
    ) from None

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""The longest frame that is accepted from a server, in bytes."""

MAX_REASON_CODE_POINTS = 500
"""How much of a server's reason an error shows."""

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
        thread = self._thread = _ConnectionThread(url, timeout_s)
        self._end = weakref.finalize(self, thread.end)
        self._end.atexit = False  # the end of the process closes the connection anyway
        try:
            self._connection = thread.opened.result()
        except (OSError, ValueError, WebSocketException) as error:
            thread.join()
            _raise_not_connected(url, error)
        except BaseException:  # a KeyboardInterrupt ends the wait, but not the thread
            self._end()
            raise

    def send(self, text: str) -> None:
        """Send a frame."""
        self._call(self._connection.send(text))

    def receive(self, timeout_s: float | None) -> str | bytes:
        """Wait for a frame.

        Parameters:
            timeout_s: in seconds; ``None`` waits without limit.

        Raises:
            TimeoutError: if no frame arrives in time.
        """
        return self._call(_receive(self._connection, timeout_s))

    def close(self) -> None:
        """Close the connection. Any thread may call this; it ends a :meth:`receive` that waits."""
        self._end()
        self._thread.join()

    def _call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        called = self._thread.start_soon(coroutine)
        try:
            return called.result()
        except ConnectionClosed as error:
            raise _closed(error) from error
        except concurrent.futures.CancelledError:
            raise _not_connected() from None
        finally:
            called.cancel()  # a KeyboardInterrupt ends the wait, but not what runs in the loop


class _ConnectionThread(threading.Thread):
    """Runs the event loop of one connection until :meth:`end`. It is a daemon: Python exits without it.

    Attributes:
        opened: the connection, or why there is none.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(name="tambur-websocket", daemon=True)
        self.opened: concurrent.futures.Future[ClientConnection] = concurrent.futures.Future()
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
        connection = await _Connect(
            url, open_timeout=timeout_s, compression=None, max_size=MAX_FRAME_BYTES, logger=_frame_logger
        )
        self.opened.set_result(connection)
        try:
            await self._loop.create_future()  # until `end` cancels it
        finally:
            await connection.close()
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


async def _receive(connection: ClientConnection, timeout_s: float | None) -> str | bytes:
    # A cancelled recv() loses no frame. asyncio.wait_for might lose one, and asyncio.timeout is not in 3.10.
    if timeout_s is None:
        return await connection.recv()
    task = asyncio.current_task()
    assert task is not None
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, expire)
    try:
        return await connection.recv()
    except asyncio.CancelledError:
        if late:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _raise_not_connected(url: str, error: OSError | ValueError | WebSocketException) -> NoReturn:
    match error:
        case InvalidStatus():
            status = error.response.status_code
            if 300 <= status < 400:
                location = error.response.headers.get("Location", "")
                reason = f"a redirect to {location!r:.200}, which is not followed; is the host right?"
            else:
                reason = (error.response.body or b"").decode("utf-8", "replace")
            reason = one_line(reason, MAX_REASON_CODE_POINTS)
            raise SubscriberClosedError(f"{url} answered {status}: {reason}", code=status) from error
        case ConnectionRefusedError():
            # asyncio says "Connect call failed" and repeats the address.
            raise SubscriberClosedError(f"cannot connect to {url}: connection refused") from error
        case InvalidProxy():
            # Neither the text nor a chained exception may show the proxy's URL, which holds a password.
            raise SubscriberClosedError(
                f"cannot connect to {url}: the proxy's URL in the environment is invalid; it must be "
                "http://[USER:PASSWORD@]HOST:PORT, reserved characters percent-encoded"
            ) from None
        case OSError() | WebSocketException():
            text = one_line(str(error), MAX_REASON_CODE_POINTS)
            raise SubscriberClosedError(f"cannot connect to {url}: {text}") from error
        case _:
            # As above: Python refuses some URLs itself, and may quote a part of them.
            raise SubscriberClosedError(
                f"cannot connect to {url}: its host name, or a proxy's URL in the environment, is invalid"
            ) from None


def _not_connected() -> SubscriberClosedError:
    return SubscriberClosedError("the subscriber is not connected")


def _closed(error: ConnectionClosed) -> SubscriberClosedError:
    if error.rcvd is None:
        return SubscriberClosedError("the connection to the server was lost")
    code, reason = error.rcvd.code, error.rcvd.reason
    text = f"the server ended the connection: {code} {one_line(reason)}".rstrip()
    return SubscriberClosedError(text, code=code, reason=reason)
