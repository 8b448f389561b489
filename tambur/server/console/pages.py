"""The console's requests: the page, its live events, and the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ... import __version__
from ..broker import Backend
from ..config import Config
from ..hub import Hub
from ..webhooks.delivery import Webhooks
from .samples import Sample, Sampler
from .watch import Watch

REFRESH_S = 0.5
"""Seconds between two looks for something new to send to a viewer."""

RETRY_MS = 1000
"""How soon a page that lost the server tries again, in milliseconds."""

_FILES = {
    "/": ("index.html", "text/html"),
    "/console.js": ("console.js", "text/javascript"),
    "/console.css": ("console.css", "text/css"),
    "/uplot.js": ("uplot/uPlot.iife.min.js", "text/javascript"),
    "/uplot.css": ("uplot/uPlot.min.css", "text/css"),
}

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Pages:
    """Answers the requests of viewers.

    Parameters:
        config: the apps.
        hub: the hub of the server.
        backend: whose health is shown.
        webhooks: the server's endpoints of webhooks.
        watch: the observer of the server.
        sampler: takes the samples.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        backend: Backend,
        webhooks: Webhooks,
        *,
        watch: Watch,
        sampler: Sampler,
    ) -> None:
        self._apps = [f"{app.api_key}/{app.app_id}" for app in config.apps]
        self._hub = hub
        self._backend = backend
        self._webhooks = webhooks
        self._watch = watch
        self._sampler = sampler
        self._began_at = time.monotonic()
        self._stopping = asyncio.Event()
        self.token = ""
        """The token that :class:`~tambur.server.console.access.Access` demands for a change."""

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the console."""
        return [
            *(_file(path, *file) for path, file in _FILES.items()),
            Route("/events", self._answer_events),
            Route("/metrics", self._answer_metrics),
        ]

    def stop(self) -> None:
        """End the live events of all viewers."""
        self._stopping.set()

    async def _answer_events(self, _: Request) -> Response:
        return live(self._events())

    async def _events(self) -> AsyncIterator[bytes]:
        """First everything that is kept, then what is new."""
        hello = {
            "token": self.token,
            "apps": self._apps,
            "sample": Sample._fields,
        }
        yield event("hello", hello, retry=True)
        sample = refusal = 0
        while not self._stopping.is_set():
            if sample != self._sampler.samples.end:
                samples = self._sampler.samples.since(sample)
                sample = self._sampler.samples.end
                yield event("samples", samples)
                yield event("nodes", [self._node()])
            if refusal != self._watch.refusals.end:
                refusals = [r._asdict() for r in self._watch.refusals.since(refusal)]
                refusal = self._watch.refusals.end
                yield event("refusals", refusals)
            await self.pause()

    def _node(self) -> dict[str, object]:
        return {
            "node": "this node",
            "health": self._backend.unavailable_reason,
            "version": __version__,
            "age_s": time.monotonic() - self._began_at,
        }

    async def pause(self) -> None:
        """Wait until it is time to look for news, or the server stops."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), REFRESH_S)

    async def _answer_metrics(self, _: Request) -> Response:
        try:
            from ..metrics import CONTENT_TYPE, exposition  # noqa: PLC0415 - needs an extra of its own
        except ImportError as error:
            return PlainTextResponse(f"{error}\n", 501)
        return Response(exposition(self._hub, self._webhooks), headers={"Content-Type": CONTENT_TYPE})


def live(events: AsyncIterator[bytes]) -> Response:
    """Make an answer of server-sent events."""
    return StreamingResponse(events, media_type="text/event-stream")


def event(name: str, data: Any, *, retry: bool = False) -> bytes:
    """Encode one server-sent event."""
    head = f"retry: {RETRY_MS}\n" if retry else ""
    # JSON has no line break.
    return f"{head}event: {name}\ndata: {_to_json(data)}\n\n".encode()


def _file(path: str, name: str, media_type: str) -> Route:
    read: Callable[[], bytes] = (resources.files("tambur.server") / "static" / "console" / name).read_bytes

    async def answer(_: Request) -> Response:
        return Response(read(), media_type=media_type)

    return Route(path, answer)
