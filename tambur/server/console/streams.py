"""The console's requests about streams: search, follow, publish and disconnect."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from ...errors import InvalidNameError
from ...protocol.messages import encode_message
from ...protocol.names import (
    check_prefix,
    check_stream,
    check_subscriber_id,
    check_user_id,
    parse_destination,
)
from ..api.auth import RefusedError
from ..api.publish import check_message
from ..broker import BrokerUnavailableError, Claim, Publication
from ..config import App
from ..logs import line
from ..rounds import Subscription
from ..transports.reading import read_body
from .live import Stopping, event, live
from .parts import Parts
from .watch import TooManyTracesError

MAX_STREAMS = 100
"""How many streams a search shows."""

MAX_USERS = 200
"""How many present users of a stream are shown."""

MAX_SUBSCRIBERS = 100
"""How many subscribers of a stream are shown."""

MAX_KEPT = 1000
"""Kept messages are counted up to this number."""

_BODY_BESIDES_BYTES = 8192
_MAX_ESCAPE = 6
"""How many bytes JSON takes for a byte of a message at most."""

logger = logging.getLogger("tambur.server")


class Streams:
    """Answers the requests of viewers about streams.

    Parameters:
        parts: the parts of the server.
        stopping: ends the live events.
    """

    def __init__(self, parts: Parts, stopping: Stopping) -> None:
        self._apps = {f"{app.api_key}/{app.app_id}": app for app in parts.config.apps}
        self._max_message_bytes = parts.config.limits.max_message_bytes
        self._parts = parts
        self._watch = parts.watch
        self._stopping = stopping
        self._key = secrets.token_bytes(32)

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes for streams."""
        return [
            Route("/streams", _answered(self._search), methods=["GET"]),
            Route("/stream", _answered(self._show), methods=["GET"]),
            Route("/follow", _answered(self._follow), methods=["GET"]),
            Route("/subscriber", _answered(self._reveal), methods=["POST"]),
            Route("/publish", _answered(self._publish), methods=["POST"]),
            Route("/disconnect", _answered(self._disconnect), methods=["POST"]),
        ]

    async def _search(self, request: Request) -> Response:
        """The first streams with subscribers whose names begin with a prefix."""
        app = self._app(request.query_params.get("app"))
        prefix = check_prefix(request.query_params.get("prefix", ""))
        found = await self._parts.queries.streams(app, prefix=prefix, limit=MAX_STREAMS)
        names = [info.stream for info in found.streams]
        kept = await self._parts.hub.recovery.count_kept(app.key, names)
        streams = [{**info._asdict(), "kept": kept[i]} for i, info in enumerate(found.streams)]
        return JSONResponse({"streams": streams, "more": found.after is not None})

    async def _show(self, request: Request) -> Response:
        """A stream's present users, its subscribers on this node, and how many messages are kept."""
        app, name = self._stream(request)
        users = await self._parts.queries.users(app, name, limit=MAX_USERS)
        history = await self._parts.queries.history(app, name, limit=MAX_KEPT, since=None)
        subscriptions = list(islice(self._parts.hub.subscriptions(app.key, name), MAX_SUBSCRIBERS + 1))
        return JSONResponse(
            {
                "users": users.user_ids,
                "more_users": users.after is not None,
                "kept": len(history.messages),
                "more_kept": history.more,
                "subscribers": [self._subscriber(s) for s in subscriptions[:MAX_SUBSCRIBERS]],
                "more_subscribers": len(subscriptions) > MAX_SUBSCRIBERS,
            }
        )

    def _subscriber(self, subscription: Subscription) -> dict[str, object]:
        return {
            "handle": self._handle(subscription.subscriber_id),
            "auth": subscription.auth,
            "presence": subscription.present_as,
            "direct": subscription.direct_as,
            "waiting_bytes": subscription.outbox.unsent_bytes,
        }

    def _handle(self, subscriber_id: str) -> str:
        """A name for a subscriber, which tells nothing of its ID."""
        return hmac.digest(self._key, subscriber_id.encode(), hashlib.sha256).hex()[:16]

    async def _reveal(self, request: Request) -> Response:
        """The ID of a subscriber of this node, for a viewer who asks for it."""
        fields = await self._fields(request)
        app, name = self._app(fields.get("app")), check_stream(fields.get("stream"))
        for subscription in self._parts.hub.subscriptions(app.key, name):
            if self._handle(subscription.subscriber_id) == fields.get("handle"):
                return JSONResponse({"subscriber_id": subscription.subscriber_id})
        raise RefusedError(404, "this subscriber has left the stream")

    async def _follow(self, request: Request) -> Response:
        app, name = self._stream(request)
        self._watch.require_room(app.key, name)
        return live(self._traced(app, name))

    async def _traced(self, app: App, name: str) -> AsyncIterator[bytes]:
        """The newest publications of a stream, each again whenever more of its way is known."""
        try:
            # A used stream is delivered to this node, also without a subscriber.
            async with self._parts.hub.used(app.key, name):
                with (
                    self._watch.following(app.key, name) as trace,
                    self._parts.reports.asking(app.key, name) as reported,
                ):
                    changed, changed_elsewhere = -1, 0
                    while not self._stopping.is_set():
                        if changed != trace.changed:
                            publications = [traced.as_json() for traced in trace.since(changed)]
                            changed = trace.changed
                            yield event("publications", publications)
                        if changed_elsewhere != reported.changed:
                            changed_elsewhere = reported.changed
                            yield event("reports", reported.reports)
                        await self._stopping.pause()
        except (BrokerUnavailableError, TooManyTracesError) as error:
            yield event("failed", str(error))

    async def _publish(self, request: Request) -> Response:
        fields = await self._fields(request)
        app, stream, message = self._app(fields.get("app")), fields.get("stream"), fields.get("message")
        if not isinstance(stream, str) or not isinstance(message, str):
            raise RefusedError(400, "stream and message must be strings")
        check_message(message, self._max_message_bytes)
        kind, name = parse_destination(stream)
        now = int(time.time())
        claim = Claim(app.key, now, secrets.token_bytes(16), secrets.token_bytes(16))
        publication = Publication(app.key, kind, name, encode_message(kind, name, message))
        asked_at = time.perf_counter()
        published = await self._parts.backend.broker.publish(
            publication, claim, now=now, max_publishes_per_s=None
        )
        self._watch.published(publication, published, None, time.perf_counter() - asked_at)
        logger.info(line("published from the console", app=app.app_id, stream=stream))
        return JSONResponse({"nodes": published.nodes})

    async def _disconnect(self, request: Request) -> Response:
        fields = await self._fields(request)
        app = self._app(fields.get("app"))
        user_id, subscriber_id = fields.get("user_id"), fields.get("subscriber_id")
        if (user_id is None) is (subscriber_id is None):
            raise RefusedError(400, "exactly one of user_id and subscriber_id must be given")
        count = await self._parts.disconnects.disconnect(
            app,
            user_id=None if user_id is None else check_user_id(user_id),
            subscriber_id=None if subscriber_id is None else check_subscriber_id(subscriber_id),
        )
        logger.info(line("sessions ended from the console", app=app.app_id, sessions=count))
        return JSONResponse({"disconnected": count})

    def _app(self, name: object) -> App:
        app = self._apps.get(name) if isinstance(name, str) else None
        if app is None:
            raise RefusedError(404, "app must be API_KEY/APP_ID of an app of this server")
        return app

    def _stream(self, request: Request) -> tuple[App, str]:
        parameters = request.query_params
        return self._app(parameters.get("app")), check_stream(parameters.get("stream", ""))

    async def _fields(self, request: Request) -> dict[str, Any]:
        """The members of a JSON object in the body."""
        body = await read_body(request, self._max_message_bytes * _MAX_ESCAPE + _BODY_BESIDES_BYTES)
        if body is None:
            raise RefusedError(413, "the body is too large")
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise RefusedError(400, "the body must be a JSON object")
        return fields


def _answered(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn an endpoint's exceptions into plain-text answers."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RefusedError as refused:
            return PlainTextResponse(f"{refused.reason}\n", refused.status)
        except InvalidNameError as error:
            return PlainTextResponse(f"{error}\n", 400)
        except (BrokerUnavailableError, TooManyTracesError) as error:
            return PlainTextResponse(f"{error}\n", 503)

    return answer
