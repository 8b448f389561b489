"""Signed queries, byte by byte, right or wrong in any way."""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import quote

from tambur.protocol import oauth as signing

from .app import API_KEY, APP_ID, SECRET
from .wire import Answer, Listening, ask

FORM = "application/x-www-form-urlencoded"


def query(
    server: Listening,
    path: str,
    *pairs: tuple[str, str | bytes],
    app_id: str = APP_ID,
    secret: str = SECRET,
    nonce: str | None = None,
    timestamp: int | None = None,
    line: str | None = None,
    **fields: Any,
) -> Answer:
    """Ask a query.

    Parameters:
        path: what follows ``/app/APP_ID/``, as it is sent.
        pairs: parameters that may be doubled.
        nonce: ``None`` for a new one. It counts as used only with the same timestamp.
        timestamp: seconds since 1970; ``None`` for now.
        line: the request line; ``None`` for the right one.
        fields: further parameters.
    """
    whole = f"/app/{quote(app_id, safe='')}/{path}"
    body = signing.sign_form(
        signing.base_string_url(f"{server.url}{whole}"),
        [("api_version", "1.0"), *pairs, *((name, str(value)) for name, value in fields.items())],
        api_key=API_KEY,
        secret=secret,
        timestamp=int(time.time()) if timestamp is None else timestamp,
        nonce=nonce or uuid.uuid4().hex,
    )
    lines = [
        line or f"POST {whole} HTTP/1.1",
        f"Host: {server.url.removeprefix('http://')}",
        f"Content-Type: {FORM}",
        f"Content-Length: {len(body)}",
        "",
        body,
    ]
    return ask(server, "\r\n".join(lines).encode())
