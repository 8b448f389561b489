"""The page of ``tambur demo``, and what it asks of its application.

It gives a token to whoever asks, and publishes for him: a real application decides who may have one.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...credentials import Credentials
from ...errors import TamburError
from ...protocol.tokens import Mode, TokenSigner
from ...publisher.client import Tambur

# Nothing but what the page itself holds, and its own server.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_routes(credentials: Credentials) -> list[Route]:
    """What the page needs of a server.

    Parameters:
        credentials: of the app; their ``base_url`` is not looked at.
    """
    html = (resources.files("tambur.cli.demo") / "page.html").read_text("utf-8")
    api_key, app_id, secret = credentials.api_key, credentials.app_id, credentials.secret
    signer = TokenSigner(api_key, app_id, secret)

    async def show(_: Request) -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    async def app(_: Request) -> Response:
        return JSONResponse({"api_key": api_key, "app_id": app_id})

    @_refusing
    async def token(request: Request) -> Response:
        fields = await _fields(request, "mode", "stream", "user_id", "subscriber_id")
        mode = Mode(fields["mode"])
        return PlainTextResponse(
            signer.sign(mode, fields["stream"], fields["subscriber_id"], fields["user_id"])
        )

    @_refusing
    async def publish(request: Request) -> Response:
        fields = await _fields(request, "stream", "message")
        host, port = request.scope["server"]
        with Tambur(api_key, app_id, secret, f"{host}:{port}") as tambur:
            await run_in_threadpool(tambur.publish, fields["stream"], fields["message"])
        return Response(status_code=204)

    return [
        Route("/", show),
        Route("/demo/app", app),
        Route("/demo/token", token, methods=["POST"]),
        Route("/demo/publish", publish, methods=["POST"]),
    ]


async def _fields(request: Request, *names: str) -> dict[str, str]:
    try:
        given = await request.json()
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in names):
        raise ValueError(f"the body must be a JSON object of strings, with {', '.join(names)}")
    return given


def _refusing(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer with 400 what cannot be done."""

    @functools.wraps(endpoint)
    async def refuse(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (TamburError, ValueError) as error:
            return PlainTextResponse(f"{error}\n", 400)

    return refuse
