"""Server-sent events, until the server stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse

REFRESH_S = 0.25
"""Seconds between two looks for something new to send to a viewer."""

RETRY_MS = 1000
"""How soon a page that lost the server tries again, in milliseconds."""

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Stopping(asyncio.Event):
    """Set once the server stops."""

    async def pause(self) -> None:
        """Wait until it is time to look for news, or the server stops."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.wait(), REFRESH_S)


def live(events: AsyncIterator[bytes]) -> Response:
    """Make an answer of server-sent events."""
    return StreamingResponse(events, media_type="text/event-stream")


def event(name: str, data: Any) -> bytes:
    """Encode one server-sent event."""
    # JSON has no line break.
    return f"retry: {RETRY_MS}\nevent: {name}\ndata: {_to_json(data)}\n\n".encode()
