"""The JSON arrays of section 4 of the protocol: commands of subscribers and events for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from .names import Kind
from .options import (
    HelloOptions,
    InvalidOptionsError,
    SubscribeOptions,
    parse_hello_options,
    parse_subscribe_options,
)
from .syntax import syntax_length
from .tokens import Mode

MAX_HANDLE = 2**53 - 1  # the largest integer that JavaScript counts up to exactly

MAX_SYNTAX = 4096
"""How many characters of a command may be outside of strings. One with all options has about 40."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class MalformedCommandError(Exception):
    """A frame is not a command. The text is the reason in the ack."""


class Hello(NamedTuple):
    """``options`` is ``None`` if they break a rule."""

    handle: int
    options: HelloOptions | None


class Subscribe(NamedTuple):
    """``options`` is ``None`` if they break a rule."""

    handle: int
    stream: str
    options: SubscribeOptions | None = SubscribeOptions()


class Unsubscribe(NamedTuple):
    handle: int
    stream: str


class SetMode(NamedTuple):
    """``user_id`` is ``None`` for auth mode."""

    handle: int
    mode: Mode
    stream: str
    user_id: str | None
    token: str


class UnsetMode(NamedTuple):
    handle: int
    mode: Mode
    stream: str


class Direct(NamedTuple):
    handle: int
    stream: str
    to_user_id: str
    message: str


Command: TypeAlias = Hello | Subscribe | Unsubscribe | SetMode | UnsetMode | Direct


def parse(text: str, *, is_extended: bool = False) -> Command:
    """Parse one frame.

    This checks the form only. A command with an invalid name, option or token has a handle, so its refusal
    is an ack to that handle.

    Parameters:
        is_extended: whether a ``hello`` was answered with ``"ok"``. Then a ``subscribe`` may have options.

    Raises:
        MalformedCommandError: if the frame is not a command.
    """
    if len(text) > MAX_SYNTAX and syntax_length(text) > MAX_SYNTAX:
        raise MalformedCommandError(
            f"a command must have at most {MAX_SYNTAX:,} characters outside of strings"
        )
    try:
        array = json.loads(text)
    except (ValueError, RecursionError):
        # A ValueError is also raised for integers beyond the interpreter's limit of digits.
        raise MalformedCommandError("not JSON") from None
    if not isinstance(array, list) or not array:
        raise MalformedCommandError("a command must be a JSON array")
    word, *arguments = array
    parser = _PARSERS.get(word) if isinstance(word, str) else None
    if parser is _parse_subscribe and is_extended:
        parser = _parse_extended_subscribe
    if parser is None:
        raise MalformedCommandError("unknown command")
    if not arguments or type(arguments[0]) is not int or not 0 < arguments[0] <= MAX_HANDLE:
        raise MalformedCommandError("the handle must be an integer from 1 to 2^53 - 1")
    return parser(*arguments)


def _strings(usage: str, count: int, values: tuple[Any, ...]) -> tuple[str, ...]:
    if len(values) != count:
        raise MalformedCommandError(f"the form must be {usage}")
    for field, value in zip(usage.strip("[]").split(", ")[-count:], values, strict=True):
        if not isinstance(value, str):
            raise MalformedCommandError(f"{field} must be a string, not {_json_type(value)}")
    return values


def _json_type(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # The database's key of a user, mostly. The token is for its text, so both sides must use that.
        return f"the number {value!r:.40}; use String(id) in the page, and str(id) for its token"
    names = {bool: "true or false", list: "an array", dict: "an object"}
    return names.get(type(value), "null")


def _parse_subscribe(handle: int, *values: Any) -> Command:
    (stream,) = _strings('["subscribe", HANDLE, STREAM]', 1, values)
    return Subscribe(handle, stream)


def _parse_extended_subscribe(handle: int, *values: Any) -> Command:
    usage = '["subscribe", HANDLE, STREAM, OPTIONS]'
    stream, *options = values or ("",)
    if not isinstance(stream, str) or not values or len(options) > 1:
        raise MalformedCommandError(f"the form must be {usage}, with a string for the stream")
    if not options:
        return Subscribe(handle, stream)
    try:
        return Subscribe(handle, stream, parse_subscribe_options(options[0]))
    except InvalidOptionsError:
        return Subscribe(handle, stream, None)


def _parse_hello(handle: int, *values: Any) -> Command:
    if len(values) != 1:
        raise MalformedCommandError('the form must be ["hello", HANDLE, OPTIONS]')
    try:
        return Hello(handle, parse_hello_options(values[0]))
    except InvalidOptionsError:
        return Hello(handle, None)


def _parse_unsubscribe(handle: int, *values: Any) -> Command:
    (stream,) = _strings('["unsubscribe", HANDLE, STREAM]', 1, values)
    return Unsubscribe(handle, stream)


def _mode(values: tuple[Any, ...]) -> Mode:
    try:
        return Mode(values[0] if values else None)
    except ValueError:
        raise MalformedCommandError('the mode must be "auth", "presence" or "direct"') from None


def _parse_set_mode(handle: int, *values: Any) -> Command:
    mode = _mode(values)
    if mode is Mode.AUTH:
        stream, token = _strings('["set_mode", HANDLE, "auth", STREAM, TOKEN]', 2, values[1:])
        return SetMode(handle, mode, stream, None, token)
    usage = f'["set_mode", HANDLE, "{mode.value}", STREAM, USER_ID, TOKEN]'
    stream, user_id, token = _strings(usage, 3, values[1:])
    return SetMode(handle, mode, stream, user_id, token)


def _parse_unset_mode(handle: int, *values: Any) -> Command:
    mode = _mode(values)
    if mode is Mode.DIRECT and len(values) == 3:
        values = values[:2]  # some clients add the user ID
    (stream,) = _strings('["unset_mode", HANDLE, MODE, STREAM]', 1, values[1:])
    return UnsetMode(handle, mode, stream)


def _parse_direct(handle: int, *values: Any) -> Command:
    usage = '["direct", HANDLE, STREAM, TO_USER_ID, MESSAGE]'
    stream, to_user_id, message = _strings(usage, 3, values)
    try:
        message.encode()
    except UnicodeEncodeError:
        raise MalformedCommandError("the message must not contain a lone surrogate") from None
    return Direct(handle, stream, to_user_id, message)


_PARSERS = {
    "hello": _parse_hello,
    "subscribe": _parse_subscribe,
    "unsubscribe": _parse_unsubscribe,
    "set_mode": _parse_set_mode,
    "unset_mode": _parse_unset_mode,
    "direct": _parse_direct,
}


HEARTBEAT = b'["heartbeat"]'
"""Sent to an extended connection that was sent nothing else for a while."""


def encode_ack(handle: int, result: str, facts: Mapping[str, object] | None = None) -> bytes:
    """Encode the answer to a command; handle 0 answers a malformed frame.

    Parameters:
        facts: a fourth element for extended connections; ``None`` for no such element.
    """
    answer: list[object] = ["ack", handle, result]
    if facts is not None:
        answer.append(facts)
    return _encode(answer).encode()


def encode_session(key: str) -> bytes:
    """Encode a fresh session key."""
    return _encode(["session", key]).encode()


def add_position(event: bytes, position: str) -> bytes:
    """Encode a message for an extended connection: add its position as the fifth element.

    Parameters:
        event: the result of :func:`encode_message` or :func:`encode_direct`.
        position: characters of ``[A-Za-z0-9._-]``.
    """
    return b'%s,"%s"]' % (event[:-1], position.encode("ascii"))


def encode_message(kind: Kind, stream: str, message: str) -> bytes:
    """Encode a message to a stream, or to one subscriber, where ``stream`` is ignored."""
    if kind is Kind.PRIVATE:
        stream = "private"
    # Encoding an array of these takes twice as long.
    return f'["msg",{_encode(stream)},"{kind.value}",{_encode(message)}]'.encode()


def message_json(kind: Kind, stream: str, event: bytes) -> bytes:
    """The text of a message to a stream, as a JSON string.

    Parameters:
        event: the result of :func:`encode_message` for the same kind and stream.
    """
    # The encoded text of an empty message ends with two quotation marks and a bracket.
    return event[len(encode_message(kind, stream, "")) - 3 : -1]


def encode_presence(stream: str, user_id: str, *, up: bool) -> bytes:
    """Encode that a user joined or left."""
    return _encode(["msg", stream, Kind.PRESENCE.value, [user_id, "up" if up else "down"]]).encode()


def encode_direct(stream: str, from_user_id: str, message: str) -> bytes:
    """Encode a direct message from a user."""
    return _encode(["msg", stream, Kind.DIRECT.value, [from_user_id, message]]).encode()
