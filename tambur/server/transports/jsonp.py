"""Answers that are scripts: a function of the page, called with JSON. Sections 5 and 6 of the protocol."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..config import App
from .refusal import Refusal, origin_not_allowed

MAX_QUERY_PARAMETERS = 64

# Both are written into a script, so nothing that could be more than a name and a number gets through.
_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,99}")
_INSTANCE = re.compile(r"[0-9]{1,20}")

_REFERER = re.compile(r"([a-z][a-z0-9+.-]*://[^/?#@\s]+)(?:[/?#].*)?", re.IGNORECASE)

_HEADERS = {
    "Content-Type": "application/javascript",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Access-Control-Allow-Origin": "*",
}


class Caller:
    """The request for a script: the function to call, and the number to pass as its first argument."""

    def __init__(self, callback: str, instance: str) -> None:
        self._call = f"{callback}({instance}, "

    def answer(self, value: Any) -> Response:
        """Call the function; JSON escapes all but ASCII."""
        # The comment keeps the answer from beginning with bytes of the caller's choice.
        text = f"/**/{self._call}{json.dumps(value, separators=(',', ':'))})"
        return Response(text.encode("ascii"), headers=_HEADERS)


def empty_answer() -> Response:
    """A script that does nothing."""
    return Response(b"", headers=_HEADERS)


def refuse_page(app: App, request: Request) -> Refusal | None:
    """Check the page that loads a script against the app's ``allowed_origins``.

    A script tag sends a ``Referer`` and no ``Origin``; ``fetch`` sends an ``Origin``. Each one that is sent
    must be allowed, and one of them must be sent: a page can suppress its ``Referer``.

    Returns:
        ``None`` if the page may subscribe.
    """
    if app.allowed_origins is None:
        return None
    headers = request.headers
    origins = headers.getlist("origin") + [_origin_of(referer) for referer in headers.getlist("referer")]
    if not origins:
        return origin_not_allowed(None)
    for origin in origins:
        if not app.allows_origin(origin):
            return origin_not_allowed(origin)
    return None


def _origin_of(referer: str) -> str:
    # The path of a page may be confidential, so an answer never repeats it.
    match = _REFERER.fullmatch(referer)
    return "null" if match is None else match[1]


def parse_caller(request: Request) -> Caller | Response:
    """Read ``callback`` and ``instance``; a 400 if one of them is missing or invalid."""
    if request.scope["query_string"].count(b"&") >= MAX_QUERY_PARAMETERS:
        return PlainTextResponse(f"the query has more than {MAX_QUERY_PARAMETERS} parameters\n", 400)
    callback = request.query_params.get("callback", "")
    if not _CALLBACK.fullmatch(callback):
        return PlainTextResponse(f"callback must be a function's name, not {callback!a:.120}\n", 400)
    instance = request.query_params.get("instance", "")
    if not _INSTANCE.fullmatch(instance):
        return PlainTextResponse(f"instance must be a number of 1 to 20 digits, not {instance!a:.40}\n", 400)
    return Caller(callback, instance)
