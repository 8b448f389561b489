"""Chooses who answers a request, by its method and path. An ASGI application."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ..counters import Counts
from ..transports.refusal import host_not_allowed
from . import health
from .signed import CORS

Answer = Callable[[Request], Awaitable[Response]]

# Matches the path as it was sent: a stream may contain any encoded character, and starlette's routes do not
# match all of them.
_SIGNED_PATH = re.compile(rb"/app/[^/]+/([a-z]+)(?:/.*)?", re.DOTALL)


def make_app(
    signed: Mapping[str, Answer], routes: Sequence[BaseRoute], public_hosts: tuple[str, ...], counts: Counts
) -> ASGIApp:
    """Make the application for all requests that are not upgraded.

    Parameters:
        signed: what answers ``POST /app/APP_ID/NAME`` and the paths below it, by ``NAME``.
        routes: the other routes.
        public_hosts: the values of ``Host`` that are answered; any if empty.
        counts: where refusals are counted.
    """
    router = Router(routes, redirect_slashes=False)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match = _SIGNED_PATH.fullmatch(scope["raw_path"])
        answer = None if match is None else signed.get(match[1].decode())
        if answer is None:
            await router(scope, receive, send)
        elif scope["method"] == "POST":
            await (await answer(Request(scope, receive)))(scope, receive, send)
        else:
            refusal = PlainTextResponse("use POST here\n", 405, CORS | {"Allow": "POST"})
            await refusal(scope, receive, send)

    return _HostCheck(app, public_hosts, counts) if public_hosts else app


class _HostCheck:
    """Refuses requests for hosts that are not public."""

    def __init__(self, app: ASGIApp, public_hosts: tuple[str, ...], counts: Counts) -> None:
        self._app = app
        self._public_hosts = public_hosts
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Request(scope).headers.get("host", "")
        # A load balancer asks each node for its health by the node's own address.
        if host.lower() in self._public_hosts or scope["path"] == health.PATH:
            await self._app(scope, receive, send)
        else:
            refusal = host_not_allowed(host)
            refusal.record(self._counts, scope["raw_path"], "http")
            await refusal.answer()(scope, receive, send)
