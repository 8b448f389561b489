"""The files of the package that pages load: tambur.js, as a classic script and as a module, and its types.

The 404 of the server's own address says what it is.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_DIRECTORY = resources.files("tambur.server") / "static"

# Any page may load them, with subresource integrity too; after an update of the server, soon the new ones.
_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "public, max-age=300",
    "X-Content-Type-Options": "nosniff",
}


ABOUT = "This is a Tambur server. Pages load /tambur.js from it, and /health says whether it works.\n"
"""The text at ``/``, which has no page: people open the address that the server prints."""


def make_routes() -> list[Route]:
    """Make the routes of ``/``, ``/tambur.js``, ``/tambur.mjs`` and their types."""
    scripts = [_route(name, "application/javascript") for name in ("tambur.js", "tambur.mjs")]
    types = [_route(name, "text/plain") for name in ("tambur.d.ts", "tambur.d.mts")]
    return [Route("/", _answer_about, methods=["GET"]), *scripts, *types]


async def _answer_about(_: Request) -> Response:
    return PlainTextResponse(ABOUT, 404)


def _route(name: str, media_type: str) -> Route:
    body = _DIRECTORY.joinpath(name).read_bytes()
    headers = _HEADERS | {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'}

    async def answer(request: Request) -> Response:
        # RFC 9110 section 13.1.2: a list of entity tags, which a proxy may have made weak ones.
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return Route(f"/{name}", answer, methods=["GET"])
