"""The files of the package that pages load: tambur.js, and its types for who develops them."""

from __future__ import annotations

import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_DIRECTORY = resources.files("tambur.server") / "static"

# Any page may load them, with subresource integrity too; after an update of the server, soon the new ones.
_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "public, max-age=300",
    "X-Content-Type-Options": "nosniff",
}


def make_routes() -> list[Route]:
    """What answers ``/tambur.js`` and ``/tambur.d.ts``."""
    return [_route("tambur.js", "application/javascript"), _route("tambur.d.ts", "text/plain")]


def _route(name: str, media_type: str) -> Route:
    body = _DIRECTORY.joinpath(name).read_bytes()
    headers = _HEADERS | {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'}

    async def answer(request: Request) -> Response:
        # RFC 9110 section 13.1.2: a list of entity tags, which a proxy may have made weak ones.
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return Route(f"/{name}", answer, methods=["GET"])
