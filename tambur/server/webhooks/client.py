"""One POST over HTTP/1.1, of which only the status of the answer counts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from functools import lru_cache
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
def _tls() -> ssl.SSLContext:
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
        return await asyncio.wait_for(_post(url, headers, body), timeout_s)
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


async def _post(url: str, headers: Mapping[str, str], body: bytes) -> int:
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    assert parts.hostname is not None  # checked by the configuration
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        parts.port or (443 if is_tls else 80),
        ssl=_tls() if is_tls else None,
        limit=_MAX_ANSWER_BYTES,
    )
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
        status = 100
        while 100 <= status < 200:
            head = await reader.readuntil(b"\r\n\r\n")
            status = _status(head)
        with contextlib.suppress(asyncio.TimeoutError, EOFError, OSError, ValueError):
            await asyncio.wait_for(reader.readexactly(min(_length(head), _MAX_ANSWER_BYTES)), READ_ON_S)
        return status
    finally:
        writer.transport.abort()


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
