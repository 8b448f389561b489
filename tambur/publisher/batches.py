"""Batches: many messages in one request (section 8 of the protocol)."""

from __future__ import annotations

import json
import logging
import math
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import PublishError
from ..protocol import oauth as signing
from ..protocol.names import Name, check_destination
from ..protocol.paths import BATCH_PATH
from .encoding import message_text
from .retries import Failure, with_retries

if TYPE_CHECKING:
    from .client import Tambur

MAX_MESSAGES = 1000
"""How many messages a batch may have."""

MAX_BYTES = 1024 * 1024 - 4096
"""How large the messages of a batch may be, percent-encoded. A server allows 1 MiB with the signature."""

_REFUSED = re.compile(r"messages\[([0-9]{1,4})\]: ")

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

logger = logging.getLogger("tambur")


class Message(NamedTuple):
    """One message of a batch.

    Attributes:
        number: its place among the messages of the caller.
        stream: the destination, prefix included.
        message: as the caller gave it.
        json: its form in a batch.
        encoded_bytes: how many bytes it takes there, percent-encoded and with a comma.
    """

    number: int
    stream: str
    message: Any
    json: bytes
    encoded_bytes: int

    @property
    def text_bytes(self) -> int:
        """The size of its text."""
        return len(json.loads(self.json)[1].encode())


class NoBatchesError(Exception):
    """The server has no batches, or no such app; ``left`` are the messages that were not sent."""

    def __init__(self, left: list[Message]) -> None:
        super().__init__(f"{len(left)} messages are left")
        self.left = left


def are_usable(self: Tambur) -> bool:
    """Whether a batch does what a publish of each message does: a subclass may have its own publish."""
    return self.publish == self._publish


def encode(self: Tambur, number: int, stream: Name, message: Any) -> Message:
    """Encode one message.

    Raises:
        InvalidNameError: if the stream is invalid.
        InvalidMessageError: if the message cannot be encoded as text.
    """
    destination = check_destination(stream)
    text = message_text(message, self._encode)
    encoded = f"[{_to_json(destination)},{_to_json(text)}]".encode()
    return Message(number, destination, message, encoded, signing.percent_encoded_bytes(encoded) + len("%2C"))


def send(
    self: Tambur, messages: Sequence[Message], timeouts: tuple[float, float] | None
) -> Iterator[tuple[Message, bool | PublishError | None]]:
    """Publish messages as one batch, or as several if the server refuses some of them.

    Parameters:
        timeouts: those of each request; ``None`` for the constructor's.

    Yields:
        Each message with ``True`` or its error; with ``None`` if it must be published by itself.

    Raises:
        NoBatchesError: the server answers 404.
    """
    waiting = [messages]
    while waiting:
        some = waiting.pop()
        attempts, outcome = _attempt(self, some, timeouts or self._timeouts)
        if not isinstance(outcome, Failure):
            yield from ((message, True) for message in some)
            continue
        status = 0 if outcome.response is None else outcome.response.status_code
        if status == 404:
            raise NoBatchesError([message for part in (some, *reversed(waiting)) for message in part])
        # Refused, so nothing of it was delivered. The parts are sent in their order.
        if (refused := _refused(outcome, len(some))) is not None:
            invalid = some[refused]
            yield invalid, _of_one(outcome, refused).to_error(invalid.stream, attempts)
            too_large = invalid.text_bytes if status == 413 else math.inf
            rest = []
            for message in some[refused + 1 :]:
                if message.text_bytes >= too_large:
                    yield message, None  # and it will be refused, too
                else:
                    rest.append(message)
            waiting += [part for part in (rest, some[:refused]) if part]
        elif status == 413 and len(some) > 1:
            half = len(some) // 2
            waiting += [some[half:], some[:half]]
        elif status == 413:
            yield some[0], None
        else:
            yield from ((message, outcome.to_error(message.stream, attempts)) for message in some)


def _refused(failure: Failure, count: int) -> int | None:
    """The index of the message because of which a batch was refused; ``None`` for other reasons."""
    if failure.response is None or failure.response.status_code not in (400, 413):
        return None
    found = _REFUSED.match(failure.response.text)
    return int(found[1]) if found is not None and int(found[1]) < count else None


def _of_one(failure: Failure, index: int) -> Failure:
    """The failure of one message, without its index in the batch."""
    prefix = f"messages[{index}]: "
    assert failure.response is not None
    failure.response._content = failure.response.text.removeprefix(prefix).encode()  # noqa: SLF001
    return failure._replace(text=failure.text.replace(prefix, "", 1))


def _attempt(
    self: Tambur, messages: Sequence[Message], timeouts: tuple[float, float]
) -> tuple[int, Failure | int]:
    sender = self._sender
    request = sender.template.copy()
    request.url = f"{request.url}{BATCH_PATH}"
    request.body = signing.sign_batch(
        signing.base_string_url(request.url),
        b"[%s]" % b",".join([message.json for message in messages]),
        api_key=self.api_key,
        secret=self.secret,
        timestamp=int(time.time()),
        nonce=secrets.token_hex(16),
    )
    request.headers["Content-Length"] = str(len(request.body))  # the body is ASCII
    started_at = time.monotonic()
    attempts, outcome = with_retries(lambda: sender.send(request, timeouts), self._max_retries)
    logger.debug(
        "publish of %d messages: %d bytes, %s, %.1f ms, attempts: %d",
        len(messages),
        len(request.body),
        outcome.summary if isinstance(outcome, Failure) else outcome,
        1000 * (time.monotonic() - started_at),
        attempts,
    )
    return attempts, outcome
