"""Queries about streams, as methods of :class:`tambur.Tambur`: section 9 of the protocol."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import ConfigurationError
from ..protocol import oauth as signing
from ..protocol.names import (
    Name,
    check_prefix,
    check_stream,
    check_subscriber_id,
    check_user_id,
    mask_subscriber_ids,
)
from ..protocol.paths import query_path
from .retries import Failure, with_retries

if TYPE_CHECKING:
    from .client import Tambur

MAX_LIMIT = 1000
"""How much one query may ask for."""

T = TypeVar("T")

logger = logging.getLogger("tambur")


class KeptMessage(NamedTuple):
    """A kept message of a stream.

    Attributes:
        kind: ``"public"``, or ``"auth"`` for a message to ``auth:STREAM``.
        message: the text.
        position: its position, for the ``since`` of :meth:`tambur.Tambur.history`.
        published_at: when the server received it, in seconds since 1970.
    """

    kind: str
    message: str
    position: str
    published_at: float


class History(NamedTuple):
    """Kept messages of a stream.

    Attributes:
        messages: oldest first.
        position: the ``since`` of the query that continues here.
        complete: false if messages after ``since`` may be lost. Then ``messages`` is empty.
        more: whether there are more kept messages: newer ones with ``since``, otherwise older ones.
    """

    messages: list[KeptMessage]
    position: str
    complete: bool
    more: bool


class StreamInfo(NamedTuple):
    """A stream with subscribers.

    Attributes:
        stream: its name.
        subscribers: how many connections are subscribed to it.
        users: how many users are present on it.
    """

    stream: str
    subscribers: int
    users: int


# The functions below are methods of Tambur.


def users(self: Tambur, stream: Name) -> list[str]:
    """Ask who is present on a stream.

    More than 1,000 users take several requests. Users who join or leave in between may be missing or listed.

    Parameters:
        stream: the stream's name, without prefix.

    Returns:
        The users, sorted.

    Raises:
        InvalidNameError: if ``stream`` is invalid.
        PublishError: as :meth:`publish` raises it; ``attempts`` is that of the failed request.
    """
    name = check_stream(stream)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        what, fields = f"asking for the users of {name!r}", {"after": after}
        some, after = _ask(self, "users", name, fields, what=what, parse=_parse_users)
        found += some
    return found


def history(self: Tambur, stream: Name, *, limit: int = 100, since: str | None = None) -> History:
    """Ask for the kept messages of a stream, its ``auth:`` messages included.

    An answer has at most 4 MiB of messages.

    Parameters:
        stream: the stream's name, without prefix.
        limit: how many messages, 1 to 1,000.
        since: a position. Messages after it are wanted, from the oldest on; ``None`` for the newest ones.

    Raises:
        InvalidNameError: if ``stream`` is invalid.
        ConfigurationError: if ``limit`` or ``since`` is invalid.
        PublishError: as :meth:`publish` raises it.
    """
    name = check_stream(stream)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise ConfigurationError(f"limit must be an integer from 1 to {MAX_LIMIT}, not {limit!r}")
    if since is not None and (not isinstance(since, str) or not since):
        raise ConfigurationError(f"since must be a position that the server gave, not {since!r}")
    fields = {"limit": str(limit), "since": since or ""}
    what = f"asking for the history of {name!r}"
    return _ask(self, "history", name, fields, what=what, parse=_parse_history)


def streams(self: Tambur, prefix: Name = "") -> Iterator[StreamInfo]:
    """Ask for the streams that have subscribers, sorted by name.

    Each 1,000 streams take one request, made when the iterator reaches them.

    Parameters:
        prefix: how the names begin; ``""`` for all streams.

    Raises:
        InvalidNameError: if ``prefix`` is invalid.
        PublishError: as :meth:`publish` raises it.
    """
    begin = check_prefix(prefix)

    def pages() -> Iterator[StreamInfo]:
        after: str | None = ""
        while after is not None:
            fields = {"prefix": begin, "after": after}
            what = "asking for the streams"
            some, after = _ask(self, "streams", None, fields, what=what, parse=_parse_streams)
            yield from some

    return pages()


def disconnect(self: Tambur, *, subscriber_id: Name | None = None, user_id: Name | None = None) -> int:
    """End the sessions of a subscriber, or of all subscribers that are a user. They cannot be resumed.

    A connection is closed with the code 4003. Tokens for it are void. A disconnected user needs a new
    connection and new tokens, so refuse them in your view.

    Parameters:
        subscriber_id: the ID of the subscriber.
        user_id: a user. This ends the sessions with presence or direct mode as that user.

    Returns:
        How many connections and lost sessions were ended; 0 if there are none. Those that a failed attempt
        ended do not count.

    Raises:
        ConfigurationError: if not exactly one of both is given.
        InvalidNameError: if the ID is invalid.
        PublishError: as :meth:`publish` raises it. The sessions may have ended.
    """
    if (subscriber_id is None) is (user_id is None):
        raise ConfigurationError("exactly one of subscriber_id and user_id must be given")
    if user_id is not None:
        fields = {"user_id": check_user_id(user_id)}
    else:
        fields = {"subscriber_id": check_subscriber_id(subscriber_id)}
    what = f"disconnecting {next(iter(fields.values()))!r}"
    return _ask(self, "disconnect", None, fields, what=what, parse=_parse_disconnected)


def _ask(
    self: Tambur,
    word: str,
    stream: str | None,
    fields: dict[str, str],
    *,
    what: str,
    parse: Callable[[Any, str], T],
) -> T:
    """Send one query, signed anew for each attempt.

    Parameters:
        word: the query's word in the path.
        stream: the stream in the path; ``None`` for none.
        fields: the parameters; empty ones are not sent.
        what: what is asked, for errors.
        parse: makes the result of the answer and of the parameter ``after``.
    """
    sender = self._sender  # the same for all attempts, despite assignments meanwhile
    given = {name: value for name, value in fields.items() if value}

    def attempt() -> Failure | T:
        request = sender.template.copy()
        request.url = f"{request.url}{query_path(word, stream)}"
        request.body = signing.sign_form(
            signing.base_string_url(request.url),
            [("api_version", "1.0"), *given.items()],
            api_key=self.api_key,
            secret=self.secret,
            timestamp=int(time.time()),
            nonce=secrets.token_hex(16),
        )
        request.headers["Content-Length"] = str(len(request.body))  # the body is ASCII
        return sender.ask(request, self._timeouts, lambda answer: parse(answer, fields.get("after", "")))

    started_at = time.monotonic()
    attempts, outcome = with_retries(attempt, self._max_retries)
    logger.debug(
        "%s: %s, %.1f ms, attempts: %d",
        mask_subscriber_ids(what),
        outcome.summary if isinstance(outcome, Failure) else 200,
        1000 * (time.monotonic() - started_at),
        attempts,
    )
    if isinstance(outcome, Failure):
        raise outcome.to_error(stream or "", attempts, what)
    return outcome


# Parsing raises KeyError, TypeError or ValueError for an answer of another form.


def _parse_users(answer: Any, after: str) -> tuple[list[str], str | None]:
    found = [_typed(str, user_id) for user_id in answer["users"]]
    return found, _next(answer, after)


def _parse_streams(answer: Any, after: str) -> tuple[list[StreamInfo], str | None]:
    found = [
        StreamInfo(_typed(str, info["stream"]), _typed(int, info["subscribers"]), _typed(int, info["users"]))
        for info in answer["streams"]
    ]
    return found, _next(answer, after)


def _parse_history(answer: Any, _: str) -> History:
    messages = [
        KeptMessage(
            _typed(str, message["kind"]),
            _typed(str, message["message"]),
            _typed(str, message["position"]),
            float(message["published_at"]),
        )
        for message in answer["messages"]
    ]
    complete, more = _typed(bool, answer["complete"]), _typed(bool, answer["more"])
    return History(messages, _typed(str, answer["position"]), complete, more)


def _parse_disconnected(answer: Any, _: str) -> int:
    return _typed(int, answer["disconnected"])


def _next(answer: Any, after: str) -> str | None:
    """The ``after`` of the next page, which must come after this one, so that the pages end."""
    found = answer["after"]
    if found is not None and _typed(str, found) <= after:
        raise ValueError(found)
    return found if isinstance(found, str) else None


def _typed(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(value)
    return value
