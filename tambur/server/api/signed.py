"""The common part of all signed requests over HTTP: reading the body, and answering a refusal."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..broker import Broker
from ..config import Config
from ..counters import Counts
from ..logs import line
from ..transports import reading
from .auth import RefusedError, Verifier

CORS = {"Access-Control-Allow-Origin": "*"}  # the browser publisher of 2012 posts cross-origin

logger = logging.getLogger("tambur.server")


class SignedHandler:
    """Answers one kind of signed requests.

    Parameters:
        config: the apps and the limits.
        broker: carries publications, and claims nonces.
        clock: returns seconds since 1970.
        counts: where answers are counted; ``None`` does not count them.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        *,
        clock: Callable[[], float] = time.time,
        counts: Counts | None = None,
    ) -> None:
        self._verifier = Verifier(config.apps, clock)
        self._broker = broker
        self._limits = config.limits
        self._counts = counts or Counts()

    def _refuse(self, event: str, facts: Mapping[str, object], refused: RefusedError) -> Response:
        self._counts.log_refusal(event, {"status": refused.status, **facts, "reason": refused.reason})
        return refusal_answer(refused)

    def _break_off(self, event: str, facts: Mapping[str, object]) -> Response:
        logger.info(line(event, **facts))
        return Response(status_code=400)  # the client has gone


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
