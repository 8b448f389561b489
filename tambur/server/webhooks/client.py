"""One POST over HTTP/1.1, of which only the status of the answer counts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import certifi

TIMEOUT_S = 10.0
"""Seconds from the beginning of a request to the status of its answer."""

READ_ON_S = 1.0
"""Seconds for which the rest is read. Closing before would look like an error to the receiver."""

_MAX_ANSWER_BYTES = 64 * 1024


class RequestFailedError(Exception):
    """There was no answer. The text says why."""


@lru_cache(maxsize=1)
def load_tls() -> ssl.SSLContext:
    """The trusted certificates: those of the system, or of ``SSL_CERT_FILE``, and certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())  # some systems have no certificates of their own
    return context


async def post(url: str, headers: Mapping[str, str], body: bytes, *, timeout_s: float = TIMEOUT_S) -> int:
    """Send a request to a URL, to no proxy, and follow no redirect.

    Parameters:
        url: ``http`` or ``https``; a certificate is verified.
        headers: further headers.
        timeout_s: seconds for everything up to the status of the answer.

    Returns:
        The status.

    Raises:
        RequestFailedError: no answer came.
    """
    try:
        reader, writer, head = await asyncio.wait_for(_ask(url, headers, body), timeout_s)
    except asyncio.TimeoutError:
        raise RequestFailedError(f"no answer within {timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise RequestFailedError(f"TLS failed: {error.verify_message}") from None
    except EOFError:
        raise RequestFailedError("the receiver closed the connection") from None
    except (ValueError, asyncio.LimitOverrunError):
        raise RequestFailedError("the answer is not HTTP/1.1") from None
    except OSError as error:
        raise RequestFailedError(error.strerror or type(error).__name__) from None
    try:
        with contextlib.suppress(asyncio.TimeoutError, EOFError, OSError, ValueError):
            await asyncio.wait_for(reader.readexactly(min(_length(head), _MAX_ANSWER_BYTES)), READ_ON_S)
    finally:
        writer.transport.abort()
    return _status(head)


async def _ask(
    url: str, headers: Mapping[str, str], body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Send a request; return the streams, and the head of the answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None  # checked by the configuration
    is_tls = parts.scheme == "https"
    reader, writer = await _connect(parts.hostname, parts.port or (443 if is_tls else 80), is_tls=is_tls)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [
            f"POST {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "User-Agent: Tambur",
            "Connection: close",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        head = await reader.readuntil(b"\r\n\r\n")
        while 100 <= _status(head) < 200:
            head = await reader.readuntil(b"\r\n\r\n")
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer, head


async def _connect(
    host: str, port: int, *, is_tls: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    tls: dict[str, Any] = {"ssl": load_tls(), "server_hostname": host} if is_tls else {}
    addresses = await _resolve(host, port)
    for address in addresses[:-1]:
        try:
            return await asyncio.open_connection(address, port, limit=_MAX_ANSWER_BYTES, **tls)
        except ssl.SSLError:
            raise
        except OSError:
            continue  # another address may work
    return await asyncio.open_connection(addresses[-1], port, limit=_MAX_ANSWER_BYTES, **tls)


async def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a host.

    The look-up has a thread of its own. Those of the event loop are few, and a look-up that hangs would delay
    the others, and the end of the process.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: OSError | None) -> None:
        if not found.done():
            found.set_exception(error) if error is not None else found.set_result(addresses)

    def look_up() -> None:
        addresses: list[str] = []
        failure = None
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(answer[4][0]) for answer in answers]
        except OSError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, addresses, failure)

    threading.Thread(target=look_up, name="tambur-look-up", daemon=True).start()
    return await found


def _length(head: bytes) -> int:
    """The size of the body that follows; 0 if the head does not say."""
    for field in head.split(b"\r\n"):
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _status(head: bytes) -> int:
    version, _, rest = head.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ValueError("no answer in HTTP/1")
    return int(rest[:3])
