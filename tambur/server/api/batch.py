"""Batches: many messages in one request. Section 8 of the protocol."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...errors import InvalidNameError
from ...protocol.messages import encode_message
from ...protocol.names import check_subscriber_id, parse_destination
from ...protocol.paths import split_query_path
from ...protocol.syntax import syntax_length
from ..broker import BrokerUnavailableError, Claim, Outcome, Publication
from ..config import App
from ..logs import line
from .auth import RefusedError, SignedRequest, Target
from .publish import DELIVERED_ANSWER, REPLAYED_ANSWER, check_admitted, check_message
from .signed import SignedHandler, header, is_debugging, read_body

MAX_MESSAGES = 1000
"""How many messages a batch may have."""

MAX_SYNTAX = 128 * MAX_MESSAGES
"""How many characters the JSON of a batch may have outside of strings.

A message needs 10, and some more with an object or with white space.
"""

_MESSAGES_PER_TURN = 100
"""How many messages are checked in one turn of the event loop: about a third of a millisecond."""

_FORM = '[[STREAM, MESSAGE], ...] or [[STREAM, MESSAGE, {"exclude": SUBSCRIBER_ID}], ...]'

logger = logging.getLogger("tambur.server")


class Delivered(NamedTuple):
    """The result of a batch.

    Attributes:
        outcome: DELIVERED if any message was delivered now, otherwise REPLAYED.
        messages: how many it has.
    """

    outcome: Outcome
    messages: int


class BatchHandler(SignedHandler):
    """Verifies batches and hands them to the broker."""

    @functools.cached_property
    def _verifying(self) -> asyncio.Lock:
        """Held by one batch at a time, since an encoded batch takes several times its size."""
        return asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Answer ``POST /app/APP_ID/batch``."""
        facts: dict[str, object] = {}
        debug = is_debugging(request)
        try:
            target = self.target(header(request, b"host"), request.scope["raw_path"])
            facts["app"] = target.app_id
            body = await read_body(request, self._limits.max_batch_bytes)
            content_type = header(request, b"content-type")
            delivered = await self.publish(target, content_type, body, debug=debug)
        except RefusedError as refused:
            self._counts.publishes[refused.status] += 1
            return self._refuse("batch refused", facts, refused)
        except ClientDisconnect:
            return self._break_off("batch broken off by the publisher", facts)
        facts |= {"outcome": delivered.outcome.name.lower(), "messages": delivered.messages}
        logger.debug(line("batch accepted", **facts))
        self._counts.publishes[204] += delivered.messages
        return DELIVERED_ANSWER if delivered.outcome is Outcome.DELIVERED else REPLAYED_ANSWER

    def target(self, host: str, raw_path: bytes) -> Target:
        """Find what a request is for, before its body is read.

        Raises:
            RefusedError: 400 or 404.
        """
        split = split_query_path(raw_path)
        if split is None or split[1:] != ("batch", None):
            raise RefusedError(404, "the path of a batch is /app/APP_ID/batch")
        return self._verifier.find(host, raw_path, split[0])

    async def publish(
        self, target: Target, content_type: str, body: bytes, *, debug: bool = False
    ) -> Delivered:
        """Verify one request and deliver its messages.

        Parameters:
            debug: whether a refusal carries the base string that the server computed.

        Raises:
            RefusedError: with any status but 204, and 413 for a body over the limit. With 400, 401, 413 and
                429 nothing was delivered. After 503 the same request delivers the rest.
        """
        async with self._verifying:
            request = self._verifier.parse(target, content_type, body)
            try:
                app, claim, now, publications = await self._verified(request)
            except RefusedError as refused:
                if debug:
                    refused.base_string = request.base_string
                raise
        try:
            published = await self._broker.publish_batch(
                publications, claim, now=now, max_publishes_per_s=app.max_publishes_per_s
            )
        except BrokerUnavailableError as error:
            raise RefusedError(503, str(error), retry_after_s=error.retry_after_s) from error
        check_admitted(published, app)
        observer = self._counts.observer
        if observer is not None and observer.is_tracing:
            for publication in publications:
                observer.published(publication, None, None, 0.0)
        return Delivered(published.outcome, len(publications))

    async def _verified(self, request: SignedRequest) -> tuple[App, Claim, int, list[Publication]]:
        self._verifier.check_form(request, [b"messages"])
        await request.encode()
        app, claim, now = self._verifier.verify(request)
        # Only now, so that a stranger cannot make the server parse anything large.
        return app, claim, now, await self._parse(app, request.parameters[b"messages"])

    async def _parse(self, app: App, data: bytes) -> list[Publication]:
        """Check all messages before any is delivered."""
        messages = _parse_array(data)
        publications = []
        for index, item in enumerate(messages):
            if index and index % _MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
            try:
                publications.append(self._publication(app, item))
            except RefusedError as refused:
                raise RefusedError(refused.status, f"messages[{index}]: {refused.reason}") from None
        return publications

    def _publication(self, app: App, item: Any) -> Publication:
        if not isinstance(item, list) or not 2 <= len(item) <= 3:
            raise RefusedError(400, "must be an array of STREAM and MESSAGE, and possibly an object")
        stream, message, *rest = item
        for name, value in (("the stream", stream), ("the message", message)):
            if not isinstance(value, str):
                raise RefusedError(400, f"{name} must be a string")
        options = rest[0] if rest else {}
        if not isinstance(options, dict):
            raise RefusedError(400, "the third element must be an object")
        if not isinstance(options.get("exclude", ""), str):
            raise RefusedError(400, "exclude must be a string")
        try:
            kind, name = parse_destination(stream)
            excluded = check_subscriber_id(options["exclude"]) if "exclude" in options else None
        except InvalidNameError as error:
            raise RefusedError(400, str(error)) from None
        check_message(message, self._limits.max_message_bytes)
        return Publication(app.key, kind, name, encode_message(kind, name, message), excluded=excluded)


def _parse_array(data: bytes) -> list[Any]:
    try:
        text = data.decode()
        if (syntax := syntax_length(text)) > MAX_SYNTAX:
            raise RefusedError(
                400, f"messages has {syntax} characters outside of strings, at most {MAX_SYNTAX} are allowed"
            )
        array = json.loads(text)
    except (ValueError, RecursionError) as error:
        # A ValueError is also raised for what is not UTF-8, and for integers beyond the interpreter's limit.
        raise RefusedError(400, f"messages is not JSON: {str(error) or 'nested too deeply'}") from None
    if not isinstance(array, list):
        raise RefusedError(400, f"messages must be {_FORM}")
    if not 1 <= len(array) <= MAX_MESSAGES:
        raise RefusedError(400, f"messages must be 1 to {MAX_MESSAGES}, not {len(array)}")
    return array
