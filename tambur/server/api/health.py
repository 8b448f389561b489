"""``GET /health``: whether the node can take publishes, for load balancers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..broker import Backend

PATH = "/health"


def make_route(backend: Backend) -> Route:
    """Make the route: 200, or 503 with the reason while nothing can be published."""

    async def answer(_: Request) -> Response:
        reason = backend.unavailable_reason
        if reason is None:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"{reason}\n", 503)

    return Route(PATH, answer, methods=["GET"])
