"""The paths of URLs: how apps, streams and subscribers stand in a request line (sections 2 and 4)."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes


def app_path(app_id: str) -> str:
    """The path that every publish to an app begins with, ``/app/APP_ID``."""
    return "/app/" + quote(app_id, safe="")


def stream_path(destination: str) -> str:
    """The rest of the path of a publish, ``/stream/DESTINATION``.

    ``:`` stays as it is, as the 2012 clients send it. Every other character that could end the path or
    change its meaning is percent-encoded.
    """
    return "/stream/" + quote(destination, safe=":")


_PUBLISH_PATH = re.compile(rb"/app/([^/]+)/stream/(.*)", re.DOTALL)

BATCH_PATH = "/batch"
"""The rest of the path of a batch."""


def subscribe_path(api_key: str, app_id: str) -> str:
    """The path that an app's subscribers connect to, ``/API_KEY/APP_ID``."""
    return f"/{quote(api_key, safe='')}/{quote(app_id, safe='')}"


def split_publish_path(raw_path: bytes) -> tuple[str, bytes] | None:
    """Split ``/app/APP_ID/stream/DESTINATION``, as it stands in a request line.

    Everything after ``/stream/`` is the destination, decoded once: a bare ``/`` and an encoded one are the
    same name.

    Returns:
        The app ID and the destination's bytes. ``None`` for any other path, and for an app ID that is not
        UTF-8, which no app has.
    """
    match = _PUBLISH_PATH.fullmatch(raw_path)
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[1]).decode(), unquote_to_bytes(match[2])
    except UnicodeDecodeError:
        return None


def query_path(word: str, stream: str | None = None) -> str:
    """The rest of the path of a query: ``/WORD``, or ``/WORD/STREAM``."""
    return f"/{word}" if stream is None else f"/{word}/{quote(stream, safe=':')}"


def split_query_path(raw_path: bytes) -> tuple[str, str, bytes | None] | None:
    """Split ``/app/APP_ID/WORD`` or ``/app/APP_ID/WORD/STREAM``, as it stands in a request line.

    Returns:
        The app ID, the word, and the stream's bytes, decoded once; ``None`` for no stream. ``None`` for any
        other path, and for an app ID that is not UTF-8.
    """
    match = re.fullmatch(rb"/app/([^/]+)/([a-z]+)(?:/(.*))?", raw_path, re.DOTALL)
    if match is None:
        return None
    stream = None if match[3] is None else unquote_to_bytes(match[3])
    try:
        return unquote_to_bytes(match[1]).decode(), match[2].decode(), stream
    except UnicodeDecodeError:
        return None


def split_subscribe_path(raw_path: bytes) -> tuple[str, str] | None:
    """Split ``/API_KEY/APP_ID``, as it stands in a request line.

    Returns:
        The API key and the app ID; ``None`` for any other path, and if one of them is not UTF-8.
    """
    match = re.fullmatch(rb"/([^/]+)/([^/]+)", raw_path)
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[1]).decode(), unquote_to_bytes(match[2]).decode()
    except UnicodeDecodeError:
        return None
