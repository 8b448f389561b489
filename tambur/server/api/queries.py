"""Signed queries over HTTP: section 9 of the protocol. :mod:`tambur.server.queries` answers them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...errors import InvalidNameError
from ...protocol.names import check_prefix, check_stream, check_subscriber_id, check_user_id
from ...protocol.paths import split_query_path
from ..broker import Broker, BrokerUnavailableError, Claim, Outcome
from ..config import App, Config
from ..counters import Counts
from ..disconnects import Disconnects
from ..logs import line
from ..queries import Queries
from .auth import RefusedError, SignedRequest, decode
from .routes import Answer
from .signed import CORS, SignedHandler, header, is_debugging, logged_stream, read_body

MAX_BODY_BYTES = 16 * 1024

MAX_LIMIT = 1000
"""How much one query may ask for."""

_DEFAULT_HISTORY_LIMIT = 100

_POSITION = re.compile(r"[A-Za-z0-9._-]{1,64}")

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# The answer holds messages of anybody, and no browser should take it for a page.
_HEADERS = CORS | {"X-Content-Type-Options": "nosniff"}

_Perform: TypeAlias = Callable[[App], Awaitable[bytes]]

logger = logging.getLogger("tambur.server")


class QueryHandler(SignedHandler):
    """Verifies queries, and has them answered.

    Parameters:
        queries: answers the queries.
        disconnects: ends sessions.
        config, broker, counts: those of all handlers.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        queries: Queries,
        disconnects: Disconnects,
        *,
        counts: Counts | None = None,
    ) -> None:
        super().__init__(config, broker, counts=counts)
        self._queries = queries
        self._disconnects = disconnects

    @property
    def answers(self) -> dict[str, Answer]:
        """The functions that answer ``POST /app/APP_ID/WORD``, by ``WORD``."""
        prepare = {
            "users": self._users,
            "history": self._history,
            "streams": self._streams,
            "disconnect": self._disconnect,
        }
        return {word: partial(self._answer, word, prepared) for word, prepared in prepare.items()}

    async def _answer(
        self, word: str, prepare: Callable[[_Parameters, bytes | None], _Perform], request: Request
    ) -> Response:
        facts: dict[str, object] = {"query": word}
        try:
            content = await self._verified(prepare, request, facts)
        except RefusedError as refused:
            answer = self._refuse("query refused", facts, refused)
        except ClientDisconnect:
            answer = self._break_off("query broken off by the publisher", facts)
        else:
            logger.debug(line("query answered", **facts))
            answer = Response(content, media_type="application/json", headers=_HEADERS)
        self._counts.queries[word, answer.status_code] += 1
        return answer

    async def _verified(
        self,
        prepare: Callable[[_Parameters, bytes | None], _Perform],
        request: Request,
        facts: dict[str, object],
    ) -> bytes:
        raw_path = request.scope["raw_path"]
        split = split_query_path(raw_path)
        if split is None:
            raise RefusedError(404, "there is no such path")
        app_id, _, stream = split
        target = self._verifier.find(header(request, b"host"), raw_path, app_id)
        facts |= {"app": app_id, "stream": stream and logged_stream(stream)}
        body = await read_body(request, MAX_BODY_BYTES)
        parsed = self._verifier.parse(target, header(request, b"content-type"), body)
        try:
            self._verifier.check_form(parsed, [])
            perform = prepare(_Parameters(parsed), stream)
            app, claim, now = self._verifier.verify(parsed)
            await self._admit(app, claim, now)
            return await perform(app)
        except BrokerUnavailableError as error:
            raise RefusedError(503, str(error), retry_after_s=error.retry_after_s) from error
        except RefusedError as refused:
            if is_debugging(request):
                refused.base_string = parsed.base_string
            raise

    async def _admit(self, app: App, claim: Claim, now: int) -> None:
        admitted = await self._broker.admit(claim, now=now, max_publishes_per_s=app.max_publishes_per_s)
        if admitted.outcome is Outcome.RATE_LIMITED:
            reason = f"more than {app.max_publishes_per_s:g} requests/s"
            raise RefusedError(429, reason, retry_after_s=admitted.retry_after_s)
        if admitted.outcome is not Outcome.DELIVERED:
            raise RefusedError(401, "oauth_nonce was used before; sign each query anew")

    # Each prepares one kind of query: it checks the parameters, before anything is known of the app.

    def _users(self, parameters: _Parameters, stream: bytes | None) -> _Perform:
        name, limit = _stream(stream, "users"), parameters.limit(MAX_LIMIT)
        after = parameters.name("after", check_user_id)

        async def perform(app: App) -> bytes:
            found = await self._queries.users(app, name, limit=limit, after=after or "")
            return _to_json({"users": found.user_ids, "after": found.after}).encode()

        return perform

    def _streams(self, parameters: _Parameters, stream: bytes | None) -> _Perform:
        _require_no_stream(stream, "streams")
        limit, after = parameters.limit(MAX_LIMIT), parameters.name("after", check_stream)
        prefix = parameters.name("prefix", check_prefix) or ""

        async def perform(app: App) -> bytes:
            found = await self._queries.streams(app, prefix=prefix, limit=limit, after=after or "")
            return _to_json({"streams": [i._asdict() for i in found.streams], "after": found.after}).encode()

        return perform

    def _disconnect(self, parameters: _Parameters, stream: bytes | None) -> _Perform:
        _require_no_stream(stream, "disconnect")
        subscriber_id = parameters.name("subscriber_id", check_subscriber_id)
        user_id = parameters.name("user_id", check_user_id)
        if (subscriber_id is None) is (user_id is None):
            raise RefusedError(400, "exactly one of subscriber_id and user_id must be given")

        async def perform(app: App) -> bytes:
            count = await self._disconnects.disconnect(app, subscriber_id=subscriber_id, user_id=user_id)
            logger.info(line("sessions ended by the application", app=app.app_id, sessions=count))
            return _to_json({"disconnected": count}).encode()

        return perform

    def _history(self, parameters: _Parameters, stream: bytes | None) -> _Perform:
        name, limit = _stream(stream, "history"), parameters.limit(_DEFAULT_HISTORY_LIMIT)
        since = parameters.text("since")
        if since is not None and not _POSITION.fullmatch(since):
            raise RefusedError(
                400, f"since must be a position: 1 to 64 characters of A-Za-z0-9._-, not {since!a:.80}"
            )

        async def perform(app: App) -> bytes:
            found = await self._queries.history(app, name, limit=limit, since=since)
            messages = [
                b'{"kind":"%s","message":%s,"position":"%s","published_at":%.6f}'
                % (
                    message.publication.kind.value.encode(),
                    message.json,
                    message.position.encode(),
                    message.publication.place / 1e6,
                )
                for message in found.messages
            ]
            rest = {"position": found.position, "complete": found.complete, "more": found.more}
            return b'{"messages":[%s],%s' % (b",".join(messages), _to_json(rest)[1:].encode())

        return perform


class _Parameters:
    """The own parameters of a query. Each method returns ``None`` for one that is not given.

    Each method raises :class:`RefusedError`, with status 400.
    """

    def __init__(self, request: SignedRequest) -> None:
        self._request = request

    def text(self, name: str) -> str | None:
        key = name.encode()
        count = self._request.names.count(key)
        if not count:
            return None
        if count > 1:
            raise RefusedError(400, f"{name} must be given once, not {count} times")
        try:
            return self._request.parameters[key].decode()
        except UnicodeDecodeError as error:
            raise RefusedError(400, f"{name} must be UTF-8: {error.reason} at byte {error.start}") from None

    def name(self, name: str, check: Callable[[object], str]) -> str | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            return check(text)
        except InvalidNameError as error:
            raise RefusedError(400, f"invalid {name}: {error}") from None

    def limit(self, default: int) -> int:
        text = self.text("limit")
        if text is None:
            return default
        if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_LIMIT:
            raise RefusedError(400, f"limit must be an integer from 1 to {MAX_LIMIT}, not {text[:40]!a}")
        return int(text)


def _require_no_stream(data: bytes | None, word: str) -> None:
    if data is not None:
        raise RefusedError(404, f"the path of this query is /app/APP_ID/{word}")


def _stream(data: bytes | None, word: str) -> str:
    if data is None:
        raise RefusedError(404, f"the path of this query is /app/APP_ID/{word}/STREAM")
    try:
        return check_stream(decode(data, "the stream"))
    except InvalidNameError as error:
        raise RefusedError(400, str(error)) from None
