"""The page of ``tambur demo`` and the requests that the page makes.

The demo issues a token for any request and publishes any message, so only its own page may ask. It answers
loopback hosts only: otherwise another site could point a host name of its own at 127.0.0.1, and its page
would pass for the demo's. It takes JSON only: for that content type a browser asks the server before it
sends another site's request.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from ...credentials import Credentials
from ...errors import TamburError
from ...loopback import is_loopback
from ...protocol.tokens import Mode, TokenSigner
from ...publisher.client import Tambur
from ...server import Limits

MAX_BODY_BYTES = Limits().max_frame_bytes
"""The longest request body. It leaves room for the longest message with each byte as a JSON escape."""

# The page loads only itself and its own server.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_routes(
    credentials: Credentials, console_url: Callable[[], str | None] = lambda: None
) -> list[BaseRoute]:
    """Make the routes that the demo adds to a server. The first one refuses all foreign hosts.

    Parameters:
        credentials: those of the app; their ``base_url`` is ignored.
        console_url: returns the URL of the server's console; ``None`` without one.
    """
    html = (resources.files("tambur.cli.demo") / "page.html").read_text("utf-8")
    api_key, app_id, secret = credentials.api_key, credentials.app_id, credentials.secret
    signer = TokenSigner(api_key, app_id, secret)

    async def show(_: Request) -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    async def app(_: Request) -> Response:
        return JSONResponse({"api_key": api_key, "app_id": app_id})

    async def console(_: Request) -> Response:
        url = console_url()
        return PlainTextResponse("there is no console\n", 404) if url is None else RedirectResponse(f"{url}/")

    @_answer_refusals
    async def token(request: Request) -> Response:
        fields = await _read_fields(request, "mode", "stream", "user_id", "subscriber_id")
        mode = Mode(fields["mode"])
        return PlainTextResponse(
            signer.sign(mode, fields["stream"], fields["subscriber_id"], fields["user_id"])
        )

    @_answer_refusals
    async def publish(request: Request) -> Response:
        fields = await _read_fields(request, "stream", "message")
        host, port = request.scope["server"]
        with Tambur(api_key, app_id, secret, f"{host}:{port}") as tambur:
            await run_in_threadpool(tambur.publish, fields["stream"], fields["message"])
        return Response(status_code=204)

    return [
        _ForeignHosts(),
        Route("/", show),
        Route("/demo/app", app),
        Route("/demo/console", console),
        Route("/demo/token", token, methods=["POST"]),
        Route("/demo/publish", publish, methods=["POST"]),
    ]


class _ForeignHosts(BaseRoute):
    """Refuses each request whose Host is not loopback, for any path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        host = Request(scope).headers.get("host", "")
        return (Match.NONE if is_loopback(re.sub(r":[0-9]{1,5}\Z", "", host)) else Match.FULL), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Request(scope).headers.get("host", "")
        text = f"the demo answers loopback hosts only, such as 127.0.0.1, not {host!a:.100}\n"
        await PlainTextResponse(text, 421)(scope, receive, send)


async def _read_fields(request: Request, *names: str) -> dict[str, str]:
    """Read a JSON object whose members with these names are strings."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, f"the Content-Type must be application/json, not {content_type!a:.100}")
    try:
        given = json.loads(await _read_body(request))
    except (ValueError, RecursionError):  # RecursionError: JSON nested too deeply
        given = None
    if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in names):
        raise HTTPException(400, f"the body must be a JSON object of strings, with {', '.join(names)}")
    return given


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            # Closing ends an endless body.
            raise HTTPException(
                413, f"the body must have at most {MAX_BODY_BYTES} bytes", headers={"Connection": "close"}
            )
    return bytes(body)


def _answer_refusals(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn an endpoint's exception into a plain-text answer."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HTTPException as refused:
            return PlainTextResponse(f"{refused.detail}\n", refused.status_code, refused.headers)
        except (TamburError, ValueError) as error:
            return PlainTextResponse(f"{error}\n", 400)

    return answer
