"""The console's requests that need no stream: the page, its live events, and the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from .live import Stopping, event, live
from .parts import Parts
from .samples import INTERVAL_S, Sample, Sampler

_SCRIPTS = ("console", "now", "page", "refused", "streams", "trace")
_FILES = {
    "/": ("index.html", "text/html"),
    "/console.css": ("console.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
    "/uplot.js": ("uplot/uPlot.iife.min.js", "text/javascript"),
    "/uplot.css": ("uplot/uPlot.min.css", "text/css"),
}


class Pages:
    """Answers the requests of viewers.

    Parameters:
        parts: the parts of the server.
        sampler: takes the samples.
        stopping: ends the live events.
    """

    def __init__(self, parts: Parts, sampler: Sampler, stopping: Stopping) -> None:
        self._parts = parts
        self._watch = parts.watch
        self._sampler = sampler
        self._stopping = stopping
        self.token = ""
        """The token that :class:`~tambur.server.console.access.Access` demands for a change."""

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the console."""
        return [
            *(_file(path, *file) for path, file in _FILES.items()),
            Route("/events", self._answer_events, methods=["GET"]),
            Route("/metrics", self._answer_metrics, methods=["GET"]),
        ]

    async def _answer_events(self, _: Request) -> Response:
        return live(self._events())

    async def _events(self) -> AsyncIterator[bytes]:
        """First everything that is kept, then what is new."""
        apps, nodes = self._parts.config.apps, self._parts.nodes
        hello = {
            "token": self.token,
            "apps": [f"{app.api_key}/{app.app_id}" for app in apps],
            "node": nodes.name,
            "sample": Sample._fields,
            "interval_s": INTERVAL_S,
        }
        yield event("hello", hello)
        sample = refusal = 0
        seen: dict[str, dict[str, int]] = {}
        asking: asyncio.Task[list[dict[str, Any]]] | None = None
        try:
            while not self._stopping.is_set():
                if sample != self._sampler.samples.end:
                    samples = self._sampler.samples.since(sample)
                    sample = self._sampler.samples.end
                    yield event("samples", samples)
                    # A node that does not answer delays nothing of this one.
                    asking = asking or asyncio.create_task(nodes.all(apps[0].key, seen))
                if refusal != self._watch.refusals.end:
                    refusals = self._watch.refusals.since(refusal)
                    refusal = self._watch.refusals.end
                    yield event("refusals", refusals)
                if asking is not None and asking.done():
                    yield event("nodes", asking.result())
                    asking = None
                await self._stopping.pause()
        finally:
            if asking is not None:
                asking.cancel()

    async def _answer_metrics(self, _: Request) -> Response:
        try:
            from ..metrics import CONTENT_TYPE, exposition  # noqa: PLC0415 - needs an extra of its own
        except ImportError as error:
            return PlainTextResponse(f"{error}\n", 501)
        metrics = exposition(self._parts.hub, self._parts.webhooks)
        return Response(metrics, headers={"Content-Type": CONTENT_TYPE})


def _file(path: str, name: str, media_type: str) -> Route:
    file = resources.files("tambur.server") / "static" / "console" / name

    async def answer(_: Request) -> Response:
        return Response(file.read_bytes(), media_type=media_type)

    return Route(path, answer, methods=["GET"])
