"""Publishing: from a verified request to the broker. Section 2 of the protocol."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...errors import InvalidNameError
from ...protocol.messages import encode_message
from ...protocol.names import Destination, check_subscriber_id, parse_destination
from ...protocol.paths import split_publish_path
from ..broker import BrokerUnavailableError, Outcome, Publication, Published
from ..config import App
from ..logs import line
from .auth import RefusedError, SignedRequest, Target, decode, nonce_reused
from .signed import CORS, SignedHandler, header, is_debugging, logged_stream, read_body

_REPLAYED = {"Tambur-Replayed": "true"}

# A response can be sent any number of times. These two are made once.
DELIVERED_ANSWER = Response(status_code=204, headers=CORS)
REPLAYED_ANSWER = Response(status_code=204, headers=CORS | _REPLAYED)

logger = logging.getLogger("tambur.server")


class PublishTarget(NamedTuple):
    """The app that a publish is for, and its destination as bytes."""

    app: Target
    destination: bytes


class PublishHandler(SignedHandler):
    """Verifies publishes and hands them to the broker."""

    async def answer(self, request: Request) -> Response:
        """Answer ``POST /app/APP_ID/stream/STREAM``."""
        answer = await self._answer(request)
        self._counts.publishes[answer.status_code] += 1
        return answer

    async def _answer(self, request: Request) -> Response:
        target: PublishTarget | None = None
        debug = is_debugging(request)
        try:
            target = self.target(header(request, b"host"), request.scope["raw_path"])
            body = await read_body(request, self._limits.max_body_bytes)
            content_type = header(request, b"content-type")
            published = await self.publish(target, content_type, body, debug=debug)
        except RefusedError as refused:
            return self._refuse("publish refused", _facts(target), refused)
        except ClientDisconnect:
            return self._break_off("publish broken off by the publisher", _facts(target))
        if logger.isEnabledFor(logging.DEBUG):
            facts = {"outcome": published.outcome.name.lower(), "nodes": published.nodes}
            logger.debug(line("publish accepted", **_facts(target), **facts))
        is_replayed = published.outcome is Outcome.REPLAYED
        if debug:
            nodes = {"Tambur-Nodes": str(published.nodes)}
            return Response(status_code=204, headers=CORS | nodes | (_REPLAYED if is_replayed else {}))
        return REPLAYED_ANSWER if is_replayed else DELIVERED_ANSWER

    def target(self, host: str, raw_path: bytes) -> PublishTarget:
        """Find what a request is for, before its body is read.

        Raises:
            RefusedError: 400 or 404.
        """
        split = split_publish_path(raw_path)
        if split is None:
            raise RefusedError(404, "the path of a publish is /app/APP_ID/stream/STREAM")
        app_id, destination = split
        return PublishTarget(self._verifier.find(host, raw_path, app_id), destination)

    async def publish(
        self, target: PublishTarget, content_type: str, body: bytes, *, debug: bool = False
    ) -> Published:
        """Verify one request and deliver its message.

        Parameters:
            debug: whether a refusal carries the base string that the server computed.

        Returns:
            Its outcome, which is DELIVERED or REPLAYED, and how many nodes listen to the stream.

        Raises:
            RefusedError: with any status but 204, and 413 for a body over the limit.
        """
        request = self._verifier.parse(target.app, content_type, body)
        try:
            return await self._publish(target, request)
        except RefusedError as refused:
            if debug:
                refused.base_string = request.base_string
            raise

    async def _publish(self, target: PublishTarget, request: SignedRequest) -> Published:
        began_at = time.perf_counter()
        self._verifier.check_form(request, [b"message"])
        message = decode(request.parameters[b"message"], "the message")
        excluded = _parse_excluded(request)
        kind, name = _parse_destination(target.destination)
        app, claim, now = self._verifier.verify(request)
        size, limit = len(request.parameters[b"message"]), self._limits.max_message_bytes
        try:
            if size > limit:
                if await self._broker.claimed(claim) is Outcome.NONCE_REUSED:
                    raise nonce_reused()
                raise _too_large(size, limit)
            event = encode_message(kind, name, message)
            publication = Publication(app.key, kind, name, event, excluded=excluded)
            asked_at = time.perf_counter()
            published = await self._broker.publish(
                publication, claim, now=now, max_publishes_per_s=app.max_publishes_per_s
            )
            broker_s = time.perf_counter() - asked_at
            self._counts.count_publish(publication, published, asked_at - began_at, broker_s)
        except BrokerUnavailableError as error:
            raise RefusedError(503, str(error), retry_after_s=error.retry_after_s) from error
        check_admitted(published, app)
        return published


def check_message(message: str, max_bytes: int) -> None:
    """Check the text of a message that came as JSON.

    Raises:
        RefusedError: 400 for a lone surrogate, 413 for more than ``max_bytes`` of UTF-8.
    """
    try:
        size = len(message.encode())
    except UnicodeEncodeError:
        raise RefusedError(400, "the message must not contain a lone surrogate") from None
    if size > max_bytes:
        raise _too_large(size, max_bytes)


def _too_large(size: int, limit: int) -> RefusedError:
    return RefusedError(413, f"the message has {size} bytes, at most {limit} are allowed")


def check_admitted(published: Published, app: App) -> None:
    """Check that the broker delivered a request, now or earlier.

    Raises:
        RefusedError: 401 or 429.
    """
    if published.outcome is Outcome.NONCE_REUSED:
        raise nonce_reused()
    if published.outcome is Outcome.RATE_LIMITED:
        reason = f"more than {app.max_publishes_per_s:g} publishes/s"
        raise RefusedError(429, reason, retry_after_s=published.retry_after_s)


def _facts(target: PublishTarget | None) -> dict[str, object]:
    """The facts of a publish for the log."""
    if target is None:
        return {}
    return {"app": target.app.app_id, "stream": logged_stream(target.destination)}


def _parse_excluded(request: SignedRequest) -> str | None:
    if b"exclude" not in request.parameters:
        return None
    if (count := request.names.count(b"exclude")) > 1:
        raise RefusedError(400, f"exclude must be given at most once, not {count} times")
    try:
        return check_subscriber_id(request.parameters[b"exclude"])
    except InvalidNameError as error:
        raise RefusedError(400, f"exclude is invalid: {error}") from None


def _parse_destination(data: bytes) -> Destination:
    try:
        return parse_destination(decode(data, "the stream"))
    except InvalidNameError as error:
        raise RefusedError(400, str(error)) from None
