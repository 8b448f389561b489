"""Requests that wait for an event: how long, and what happens if their clients are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request

BROKEN_POLL_GRACE_S = 5.0
"""How long a connection may take to poll again once its waiting poll has broken, in seconds."""

NODE_DELAY_S = 5.0
"""How much longer than a poll the answer of another node may take, in seconds."""


async def unless_gone(request: Request, serving: Coroutine[Any, Any, bytes]) -> bytes:
    """Serve a request until there is an answer, or the client is gone; then the coroutine is cancelled.

    Returns:
        The answer; nothing if the client is gone.
    """
    served = asyncio.ensure_future(serving)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((served, gone), return_when=asyncio.FIRST_COMPLETED)
        return served.result() if served.done() else b""
    finally:
        served.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
