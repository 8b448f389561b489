"""The text that a message is sent as."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import InvalidMessageError

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def message_text(message: object, encode: Callable[[Any], str] | None) -> str:
    """Encode a message.

    Parameters:
        message: a ``str`` stays unchanged, and bytes must be UTF-8. Everything else goes through ``encode``.
        encode: returns the text of such a message; ``None`` for compact JSON.

    Raises:
        InvalidMessageError: if the message has no UTF-8 text, or ``encode`` fails.
    """
    if isinstance(message, str):
        text = message
    elif isinstance(message, (bytes, bytearray, memoryview)):
        try:
            return bytes(message).decode()
        except UnicodeDecodeError as error:
            raise InvalidMessageError(
                f"a message of bytes must be UTF-8: {error.reason} at byte {error.start}"
            ) from None
    else:
        text = _encode(message, encode)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessageError(
            f"a message must not contain lone surrogates: {text[error.start]!r} at position {error.start}"
        ) from None
    return text


def _encode(message: object, encode: Callable[[Any], str] | None) -> str:
    kind = type(message).__name__
    if encode is None:
        try:
            return _to_json(message)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidMessageError(
                f"cannot send a message of type {kind} as JSON: {error}; use Tambur(..., encode=...) for it"
            ) from error
    try:
        text = encode(message)
    except Exception as error:  # it is the caller's, and may raise anything
        raise InvalidMessageError(
            f"encode failed for a message of type {kind}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(text, str):
        raise InvalidMessageError(
            f"encode must return a str, not {type(text).__name__}, for a message of type {kind}"
        )
    return text
