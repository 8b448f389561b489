"""The HTTP part of all signed requests: reading the body, and answering a refusal."""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..transports import reading
from .auth import RefusedError

CORS = {"Access-Control-Allow-Origin": "*"}  # the browser publisher of 2012 posts cross-origin


def header(request: Request, name: bytes) -> str:
    """The first value of a header; empty without one. starlette takes five times as long."""
    for found, value in request.scope["headers"]:
        if found == name:
            return str(value, "latin-1")
    return ""


def is_debugging(request: Request) -> bool:
    """Whether the client asks for details with ``?debug=true``."""
    return b"debug=true" in request.scope["query_string"].split(b"&")


def logged_stream(stream: bytes) -> str:
    """The stream of a request's path for the log, without subscriber IDs."""
    # Any text after "private:" may be a subscriber ID, even in an invalid name.
    name, prefix, _ = stream.decode("utf-8", "replace").partition("private:")
    return f"{name}private:SUBSCRIBER_ID" if prefix else name


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body of a request.

    Raises:
        RefusedError: 413 for a body of more than ``max_bytes``.
        ClientDisconnect: if the client closes the connection.
    """
    body = await reading.read_body(request, max_bytes)
    if body is None:
        raise RefusedError(413, f"the body has more than {max_bytes} bytes")
    return body


def refusal_answer(refused: RefusedError) -> Response:
    """Make the HTTP answer to a refused request."""
    text = f"{refused.reason}\n"
    if refused.base_string is not None:
        lines = refused.base_string.replace("&", "\n&\n").replace("%26", "\n%26")
        text += f"\nThe base string that the server computed, broken into lines:\n{lines}\n"
    headers = dict(CORS)
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(refused.retry_after_s))
    if refused.status == 401:
        headers["WWW-Authenticate"] = "OAuth"
    if refused.status == 413:
        headers["Connection"] = "close"  # the client may still be sending
    return PlainTextResponse(text, refused.status, headers)
