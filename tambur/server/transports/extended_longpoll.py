"""Extended long polling: section 7 of the protocol.

A client sends commands with a POST, and receives frames with its answer. Frames are numbered, and kept until
the client confirms them. So neither a lost request nor a lost answer loses anything.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterable
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from ...protocol import close_codes
from ...protocol.paths import subscribe_path
from ...protocol.polls import (
    InvalidPollError,
    Poll,
    parse_poll,
)
from ..broker import AppKey, BrokerUnavailableError, NodeCalls
from ..broker.ids import node_of
from ..config import App, Config
from ..extended_hub import ExtendedHub
from ..memory import Holder
from ..turnstile import Turnstile
from .polled_connection import PolledConnection
from .reading import read_body
from .refusal import Refusal, origin_not_allowed
from .waiting import NODE_DELAY_S, unless_gone

TOO_MANY = "too many subscribers poll at the moment\n"
TOO_MANY_RETRY_AFTER = "10"

SMALL_BODY_BYTES = 4096
"""Of larger bodies, only one is parsed in each turn of the event loop. Nested arrays take up to 30 ms."""

QUESTION = b"post "
"""How the questions to other nodes begin."""

_SECRET_BYTES = 24

# The answer of a node: three digits of an HTTP status, then the body.
_UNKNOWN = b"404there is no such connection any more\n"

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class ExtendedLongPolls:
    """All subscribers of a server that poll with a POST.

    Parameters:
        may_open: whether one more subscriber may poll.
    """

    def __init__(
        self, config: Config, hub: ExtendedHub, calls: NodeCalls, *, may_open: Callable[[], bool]
    ) -> None:
        self._config = config
        self._hub = hub
        self._calls = calls
        self._may_open = may_open
        self._connections: dict[tuple[AppKey, str], PolledConnection] = {}
        self._large_bodies = Turnstile(1)

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def holders(self) -> Iterable[Holder]:
        """All subscribers, as far as memory is concerned."""
        return self._connections.values()

    def shutdown(self) -> None:
        """End every connection; requests that wait are answered."""
        for connection in list(self._connections.values()):
            connection.close(close_codes.GOING_AWAY, "the server is shutting down")

    async def answer(self, request: Request, app: App) -> Response:
        """Answer a POST, or the OPTIONS with which a browser may ask for the permission to send one."""
        origins = request.headers.getlist("origin")
        origin = ", ".join(origins) if origins else None
        if not app.allows_origin(origin):
            return self._refuse(app, origin_not_allowed(origin))
        cors = _cors(app, origin)
        if request.method == "OPTIONS":
            allowed = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "Content-Type"}
            return Response(status_code=204, headers=cors | allowed)
        limit = self._config.limits.max_poll_bytes
        try:
            body = await read_body(request, limit)
        except ClientDisconnect:
            return Response(status_code=400)  # the client has gone
        if body is None:
            rule = f"the body has more than {limit} bytes\n"
            return PlainTextResponse(rule, 413, cors | {"Connection": "close"})
        if len(body) > SMALL_BODY_BYTES:
            await self._large_bodies.wait()
        try:
            poll = parse_poll(body)
        except InvalidPollError as error:
            return PlainTextResponse(f"{error}\n", 400, cors)
        if poll.secret is None and not self._may_open():
            return PlainTextResponse(TOO_MANY, 503, cors | {"Retry-After": TOO_MANY_RETRY_AFTER})
        try:
            answer = await unless_gone(request, self._serve(app, poll, body))
        except BrokerUnavailableError as error:
            retry_after = {"Retry-After": str(math.ceil(error.retry_after_s))}
            return PlainTextResponse(f"{error}\n", 503, cors | retry_after)
        if not answer:
            return Response(status_code=400)  # the client has gone
        status, content = int(answer[:3]), answer[3:]
        if status == 200:
            return Response(content, 200, cors | _HEADERS, "application/json")
        return PlainTextResponse(content, status, cors | ({"Retry-After": "1"} if status == 429 else {}))

    def _refuse(self, app: App, refusal: Refusal) -> Response:
        refusal.record(self._hub.counts, subscribe_path(*app.key).encode("ascii"), "longpoll")
        return refusal.answer()

    async def _serve(self, app: App, poll: Poll, body: bytes) -> bytes:
        """Serve a request, or have the node serve it that has the connection."""
        if poll.secret is None:
            return await self._open(app).serve(poll)
        if (connection := self._connections.get((app.key, poll.secret))) is not None:
            return await connection.serve(poll)
        if len(poll.secret) != _SECRET_LENGTH or not poll.secret.isascii():
            return _UNKNOWN
        question = QUESTION + json.dumps(app.key).encode() + b"\n" + body
        timeout_s = self._config.limits.heartbeat_s + NODE_DELAY_S
        answer = await self._calls.ask(poll.secret, question, timeout_s=timeout_s)
        return _UNKNOWN if answer is None else answer

    async def answer_node(self, question: bytes) -> bytes:
        """Serve a request that reached another node."""
        key, _, body = question.removeprefix(QUESTION).partition(b"\n")
        poll = parse_poll(body)
        connection = self._connections.get((AppKey(*json.loads(key)), poll.secret or ""))
        return _UNKNOWN if connection is None else await connection.serve(poll)

    def _open(self, app: App) -> PolledConnection:
        subscriber_id = self._hub.new_subscriber_id()
        secret = node_of(subscriber_id) + secrets.token_urlsafe(_SECRET_BYTES)
        key = app.key, secret
        forget = partial(self._connections.pop, key, None)
        connection = PolledConnection(secret, subscriber_id, app, self._hub, self._config, forget=forget)
        self._connections[key] = connection
        return connection


_SECRET_LENGTH = len(node_of("0" * 36)) + len(secrets.token_urlsafe(_SECRET_BYTES))


def _cors(app: App, origin: str | None) -> dict[str, str]:
    exposed = {"Access-Control-Expose-Headers": "Retry-After"}
    if app.allowed_origins is None:
        return {"Access-Control-Allow-Origin": "*"} | exposed
    if origin is None:
        return {"Vary": "Origin"}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} | exposed
