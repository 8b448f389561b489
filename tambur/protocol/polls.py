"""The requests and answers of extended long polling: section 7 of the protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .messages import MAX_HANDLE
from .syntax import syntax_length

MAX_COMMANDS = 1000
"""How many commands one request may have."""

MAX_SYNTAX = 64 * MAX_COMMANDS
"""How many characters of a body may be outside of strings. A command with all options has about 40."""

CLOSE_CODES = range(1000, 5000)
"""The close codes of RFC 6455, section 7.4.2."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


class InvalidPollError(Exception):
    """A request is malformed. The text names the rule."""


class Poll(NamedTuple):
    """The body of a request.

    Attributes:
        secret: names the connection; ``None`` to open one.
        n: the number of the last frame that the client has, from 0.
        commands: JSON values, in their order.
        close_code: with which the client ends the connection; ``None`` to keep it.
    """

    secret: str | None
    n: int
    commands: list[Any]
    close_code: int | None


def parse_poll(body: bytes) -> Poll:
    """Parse the body of a request; members with other names are ignored.

    Commands are not checked here: as over a WebSocket, a malformed one is answered with an ack.

    Raises:
        InvalidPollError: if the body breaks a rule.
    """
    try:
        text = body.decode()
        if syntax_length(text) > MAX_SYNTAX:
            raise InvalidPollError(f"the body must have at most {MAX_SYNTAX:,} characters outside of strings")
        members = json.loads(text)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise InvalidPollError("the body must be a JSON object")
    secret, n, close_code = members.get("poll"), members.get("n", 0), members.get("close")
    if "poll" in members and not isinstance(secret, str):
        raise InvalidPollError("poll must be the string that an answer has named")
    if "poll" in members and "n" not in members:
        raise InvalidPollError("n is missing: it is the n of the last answer")
    if type(n) is not int or not 0 <= n <= MAX_HANDLE:
        raise InvalidPollError("n must be an integer from 0 to 2^53 - 1")
    if "poll" not in members and n > 0:
        raise InvalidPollError("n must be 0 in the request that opens a connection")
    if "close" in members and (type(close_code) is not int or close_code not in CLOSE_CODES):
        raise InvalidPollError("close must be an integer from 1000 to 4999")
    commands = members.get("send", [])
    if not isinstance(commands, list):
        raise InvalidPollError("send must be an array of commands")
    if len(commands) > MAX_COMMANDS:
        raise InvalidPollError(f"send must have at most {MAX_COMMANDS} commands, not {len(commands)}")
    return Poll(secret, n, commands, close_code)


class SentCommand(NamedTuple):
    """A command of a request.

    Attributes:
        handle: its handle; ``None`` if it has no valid one.
        text: the command as a frame of a WebSocket.
    """

    handle: int | None
    text: str


def as_frame(command: Any) -> SentCommand:
    """Write a command of a request as it would be sent over a WebSocket."""
    handle = None
    match command:
        case [_, int(found), *_] if type(found) is int and 0 < found <= MAX_HANDLE:
            handle = found
    try:
        return SentCommand(handle, _encode(command))
    except RecursionError:
        return SentCommand(handle, "")  # a WebSocket's frame that is nested so deeply is not JSON, too


def encode_answer(secret: str, n: int, frames: Iterable[bytes]) -> bytes:
    """Encode the answer to a request.

    Parameters:
        secret: names the connection.
        n: the number of the last of the frames; without any, that of the request.
        frames: the JSON text of each.
    """
    return b'{"poll":%s,"n":%d,"frames":[%s]}' % (_encode(secret).encode(), n, b",".join(frames))


def encode_greeting(subscriber_id: str) -> bytes:
    """Encode the first frame of a connection: a JSON string, since all frames are JSON."""
    return _encode(f"id:{subscriber_id}").encode()


def encode_close(code: int, reason: str) -> bytes:
    """Encode the last frame of a connection that the server ends."""
    return _encode(["close", code, reason]).encode()
