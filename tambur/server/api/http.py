"""The REST call and the balancer, as an ASGI application: sections 2 and 5 of the protocol."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ...credentials import is_host
from ...protocol.paths import split_subscribe_path, subscribe_path
from ..broker import AppKey, Backend, Outcome
from ..config import Config
from ..counters import Counts
from ..logs import line
from ..transports.jsonp import parse_caller, refuse_page
from ..transports.refusal import UNKNOWN_APP, Refusal, host_not_allowed
from .auth import RefusedError
from .publish import PublishHandler, PublishTarget

_CORS = {"Access-Control-Allow-Origin": "*"}  # the 2012 browser publisher posts cross-origin

_REPLAYED = {"Tambur-Replayed": "true"}

# A response can be sent any number of times. These two are made once.
_DELIVERED_ANSWER = Response(status_code=204, headers=_CORS)
_REPLAYED_ANSWER = Response(status_code=204, headers=_CORS | _REPLAYED)

_PUBLISH = "/app/"
_HEALTH = "/health"

# A publisher that is still sending its body cannot read an answer, so a body over the limit is read to
# its end, unless it is so long that this is no mistake.
_MAX_DISCARDED_BODIES = 8

logger = logging.getLogger("tambur.server")


def make_app(
    config: Config,
    publishing: PublishHandler,
    backend: Backend,
    counts: Counts,
    routes: Sequence[BaseRoute] = (),
) -> ASGIApp:
    """Make what uvicorn calls for every request that is not upgraded.

    Parameters:
        backend: asked for its health.
        counts: where publishes are counted.
        routes: what else is answered, such as polls.
    """
    apps = {app.key: app for app in config.apps}

    async def balance(request: Request) -> Response:
        names = split_subscribe_path(request.scope["raw_path"])
        app = apps.get(AppKey(*names)) if names is not None else None
        if names is None or app is None:
            return refuse(request, UNKNOWN_APP)
        if (refusal := refuse_page(app, request)) is not None:
            return refuse(request, refusal)
        caller = parse_caller(request)
        if isinstance(caller, Response):
            return caller
        host = request.headers.get("host", "")
        if not is_host(host):
            return PlainTextResponse(f"invalid Host header: {host!a:.100}\n", 400)
        return caller.answer(host + subscribe_path(*names))

    def refuse(request: Request, refusal: Refusal) -> Response:
        refusal.record(counts, request.scope["raw_path"], "balancer")
        return refusal.answer()

    async def health(_: Request) -> Response:
        reason = backend.unavailable_reason
        if reason is None:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"{reason}\n", 503)

    async def publish(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await answer_publish(Request(scope, receive))
        counts.publishes[answer.status_code] += 1
        await answer(scope, receive, send)

    async def answer_publish(request: Request) -> Response:
        if request.method != "POST":
            return PlainTextResponse("publish with POST\n", 405, _CORS | {"Allow": "POST"})
        target: PublishTarget | None = None
        debug = b"debug=true" in request.scope["query_string"].split(b"&")
        try:
            target = publishing.target(request.headers.get("host", ""), request.scope["raw_path"])
            body = await _read_body(request, config.limits.max_body_bytes)
            content_type = request.headers.get("content-type", "")
            published = await publishing.publish(target, content_type, body, debug=debug)
        except RefusedError as refused:
            facts = {"status": refused.status, **_target_facts(target), "reason": refused.reason}
            logger.info(line("publish refused", **facts))
            return _refusal(refused)
        except ClientDisconnect:
            logger.info(line("publish broken off by the publisher", **_target_facts(target)))
            return Response(status_code=400)  # nobody is there to read it
        if logger.isEnabledFor(logging.DEBUG):
            facts = _target_facts(target) | {
                "outcome": published.outcome.name.lower(),
                "nodes": published.nodes,
            }
            logger.debug(line("publish accepted", **facts))
        is_replayed = published.outcome is Outcome.REPLAYED
        if debug:
            nodes = {"Tambur-Nodes": str(published.nodes)}
            return Response(status_code=204, headers=_CORS | nodes | (_REPLAYED if is_replayed else {}))
        return _REPLAYED_ANSWER if is_replayed else _DELIVERED_ANSWER

    router = Router(
        [
            *routes,
            Route(_HEALTH, health, methods=["GET"]),
            Route("/{api_key}/{app_id}", balance, methods=["GET"]),
        ],
        redirect_slashes=False,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # A publish has a path of its own, whatever its method, and a stream may hold what no route matches.
        await (publish if scope["path"].startswith(_PUBLISH) else router)(scope, receive, send)

    return _HostCheck(app, config.public_hosts, counts) if config.public_hosts else app


async def _read_body(request: Request, max_bytes: int) -> bytes:
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        elif size > _MAX_DISCARDED_BODIES * max_bytes:
            break
    if size > max_bytes:
        raise RefusedError(413, f"the body has more than {max_bytes} bytes")
    return b"".join(chunks)


def _target_facts(target: PublishTarget | None) -> dict[str, object]:
    if target is None:
        return {}
    # Whatever stands behind "private:" may be a subscriber ID, also if the whole is no valid destination.
    stream, prefix, _ = target.destination.decode("utf-8", "replace").partition("private:")
    return {"app": target.app.app_id, "stream": f"{stream}private:SUBSCRIBER_ID" if prefix else stream}


def _refusal(refused: RefusedError) -> Response:
    text = f"{refused.reason}\n"
    if refused.base_string is not None:
        lines = refused.base_string.replace("&", "\n&\n").replace("%26", "\n%26")
        text += f"\nThe base string that the server computed, broken into lines:\n{lines}\n"
    headers = dict(_CORS)
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(refused.retry_after_s))
    if refused.status == 401:
        headers["WWW-Authenticate"] = "OAuth"
    if refused.status == 413:
        headers["Connection"] = "close"  # the rest of the body may still be on its way
    return PlainTextResponse(text, refused.status, headers)


class _HostCheck:
    """Refuses requests for any Host that is not public."""

    def __init__(self, app: ASGIApp, public_hosts: tuple[str, ...], counts: Counts) -> None:
        self._counts = counts
        self._app = app
        self._public_hosts = public_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Request(scope).headers.get("host", "")
        # Whoever looks after the health of nodes asks each by its address.
        if host.lower() in self._public_hosts or scope["path"] == _HEALTH:
            await self._app(scope, receive, send)
        else:
            refusal = host_not_allowed(host)
            refusal.record(self._counts, scope["raw_path"], "http")
            await refusal.answer()(scope, receive, send)
