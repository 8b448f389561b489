"""The WebSocket of a subscriber: an event loop in its own thread, behind blocking methods.

TLS demands the event loop. Two threads may not use one OpenSSL connection, and with Python's blocking
sockets one thread would read while another writes. A session ticket that arrived during the write of the
handshake then sometimes broke the connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import logging
import os
import re
import socket
import ssl
import threading
import urllib.request
import weakref
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from ..credentials import host_and_port
from ..errors import SubscriberClosedError, explain_connection_error
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
        self._server = host_and_port(url)
        thread = self._thread = _ConnectionThread(url, timeout_s)
        self._end = weakref.finalize(self, thread.end)
        self._end.atexit = False  # the end of the process closes the connection anyway
        try:
            self._connection = thread.opened.result()
        except (OSError, ValueError, WebSocketException) as error:
            thread.join()
            _raise_not_connected(url, timeout_s, error)
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
            raise _closed(self._server, error) from error
        except concurrent.futures.CancelledError:
            raise _not_connected() from None
        finally:
            called.cancel()  # a KeyboardInterrupt ends the wait, but not the task in the loop


class _ConnectionThread(threading.Thread):
    """Runs the event loop of one connection until :meth:`end`. It is a daemon: Python exits without it.

    Attributes:
        opened: the connection, or the error that prevented it.
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
        try:
            connection = await _Connect(
                url, open_timeout=timeout_s, compression=None, max_size=MAX_FRAME_BYTES, logger=_frame_logger
            )
        except asyncio.TimeoutError as error:
            if isinstance(error, OSError):
                raise
            raise TimeoutError from error  # in Python 3.10 another class than that of asyncio
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


def _raise_not_connected(
    url: str, timeout_s: float, error: OSError | ValueError | WebSocketException
) -> NoReturn:
    server = host_and_port(url)
    is_proxied = _is_proxied(url)
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if 300 <= status < 400:
            location = error.response.headers.get("Location", "")
            reason = f"a redirect to {location!r:.200}, which is not followed; is api_host correct?"
        else:
            reason = (error.response.body or b"").decode("utf-8", "replace")
        reason = one_line(reason, MAX_REASON_CODE_POINTS)
        raise SubscriberClosedError(f"{server} answered {status}: {reason}", code=status) from error
    if isinstance(error, InvalidProxy):
        # Neither the text nor a chained exception may show the proxy's URL, which contains a password.
        raise SubscriberClosedError(
            f"cannot connect to {server}: the proxy's URL in the environment is invalid; it must be "
            "http://[USER:PASSWORD@]HOST:PORT, reserved characters percent-encoded"
        ) from None
    if not isinstance(error, (OSError, WebSocketException)):
        # As above: Python refuses some URLs itself, and may quote a part of them.
        raise SubscriberClosedError(
            f"cannot connect to {server}: its host name, or a proxy's URL in the environment, is invalid"
        ) from None
    if type(error) is TimeoutError and error.errno is None:
        why = f"no connection within {timeout_s:g} s; is the host reachable from here?"
    elif isinstance(error, OSError):
        why = explain_connection_error(_of_system(error), ca_variable="SSL_CERT_FILE")
    else:
        hint = "; does the server expect https?" if url.startswith("ws:") and not is_proxied else ""
        why = one_line(str(error), MAX_REASON_CODE_POINTS) + hint
    if is_proxied:
        why = f"{why.partition(';')[0]}; check the proxy in the environment, or name the server in no_proxy"
    raise SubscriberClosedError(f"cannot connect to {server}: {why}") from error


def _is_proxied(url: str) -> bool:
    schemes = ("wss", "socks", "https") if url.startswith("wss:") else ("ws", "socks", "https", "http")
    found = urllib.request.getproxies()
    return any(scheme in found for scheme in schemes) and not urllib.request.proxy_bypass(host_and_port(url))


_ERRNO = re.compile(r"\[Errno ([0-9]{1,6})\]")


def _of_system(error: OSError) -> OSError:
    """An error of asyncio with the system's own words."""
    if isinstance(error, (socket.gaierror, ssl.SSLError)):
        return error
    # asyncio repeats the address, and joins the errors of several addresses of a host in one text.
    numbers = [error.errno] if error.errno is not None else map(int, _ERRNO.findall(str(error)))
    # A refusal tells most: the host is up, and lacks a server.
    number = max(numbers, key=lambda number: number == errno.ECONNREFUSED, default=None)
    return error if number is None else OSError(number, os.strerror(number))


def _not_connected() -> SubscriberClosedError:
    return SubscriberClosedError("the subscriber is not connected")


def _closed(server: str, error: ConnectionClosed) -> SubscriberClosedError:
    if error.rcvd is None:
        return SubscriberClosedError(f"the connection to {server} was lost")
    code, reason = error.rcvd.code, error.rcvd.reason
    text = f"{server} closed the connection: {code} {one_line(reason)}".rstrip()
    return SubscriberClosedError(text, code=code, reason=reason)
