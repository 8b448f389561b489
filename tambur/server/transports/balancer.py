"""The balancer, which a page asks where to connect: section 5 of the protocol."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ...credentials import is_host
from ...protocol.paths import subscribe_path
from ..apps import Apps
from ..config import Config
from ..counters import Counts
from .jsonp import parse_caller, refuse_page
from .refusal import UNKNOWN_APP, Refusal


def make_route(config: Config, counts: Counts) -> Route:
    """Make the route, which a WebSocket shares: the ``Upgrade`` header distinguishes them.

    Parameters:
        counts: where refusals are counted.
    """
    apps = Apps(config.apps)

    async def answer(request: Request) -> Response:
        app = apps.at(request.scope["raw_path"])
        if app is None:
            return refuse(request, UNKNOWN_APP)
        if (refusal := refuse_page(app, request)) is not None:
            return refuse(request, refusal)
        caller = parse_caller(request)
        if isinstance(caller, Response):
            return caller
        host = request.headers.get("host", "")
        if not is_host(host):
            return PlainTextResponse(f"invalid Host header: {host!a:.100}\n", 400)
        return caller.answer(host + subscribe_path(*app.key))

    def refuse(request: Request, refusal: Refusal) -> Response:
        refusal.record(counts, request.scope["raw_path"], "balancer")
        return refusal.answer()

    return Route("/{api_key}/{app_id}", answer, methods=["GET"])
