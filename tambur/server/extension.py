"""The additional state of an extended connection: a session with fresh keys, and a heartbeat."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache

from ..protocol.messages import HEARTBEAT, encode_session
from ..protocol.session_keys import SessionKey, SessionKeys
from .config import App, Limits
from .outbox import Batch, Outbox

RENEWAL = 0.45
"""The share of a session key's lifetime after which a fresh key is sent."""


@lru_cache(maxsize=1024)
def _keys(app: App, realm: bytes) -> SessionKeys:
    return SessionKeys(app.api_key, app.app_id, app.secrets, realm=realm)


def now_ms() -> int:
    """The time in milliseconds since 1970."""
    return int(time.time() * 1000)


def check_key(app: App, realm: bytes, limits: Limits, text: str) -> SessionKey | None:
    """Read a session key.

    Returns:
        ``None`` if it is not one of this app, or has expired. The broker knows whether the session was ended,
        and whether a later key was used.
    """
    key = _keys(app, realm).verify(text)
    if key is None:
        return None
    now = now_ms()
    if now > key.issued_ms + limits.session_ttl_s * 1000 or now > key.begun_ms + limits.session_max_s * 1000:
        return None
    return key


class Extension:
    """The session of one connection.

    Parameters:
        app: the subscriber's app.
        realm: the realm in which its keys are valid.
        limits: give the lifetimes of keys and sessions.
        outbox: the subscriber's outbox.
        session: the content of a key; the next key has the next number.
    """

    __slots__ = (
        "_app",
        "_begun_ms",
        "_issued_ms",
        "_limits",
        "_number",
        "_outbox",
        "_realm",
        "_renew_at",
        "_subscriber_id",
        "_timer",
    )

    def __init__(self, app: App, realm: bytes, limits: Limits, outbox: Outbox, session: SessionKey) -> None:
        self._app = app
        self._realm = realm
        self._limits = limits
        self._outbox = outbox
        self._subscriber_id = session.subscriber_id
        self._number = session.number
        self._begun_ms = session.begun_ms
        self._issued_ms = 0
        self._renew_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def issue_key(self) -> str:
        """Make the next key of the session."""
        self._number += 1
        self._issued_ms = now_ms()
        self._renew_at = asyncio.get_running_loop().time() + RENEWAL * self._limits.session_ttl_s
        key = SessionKey(self._subscriber_id, self._number, self._begun_ms, self._issued_ms)
        return _keys(self._app, self._realm).sign(key)

    @property
    def resumable_until_ms(self) -> int:
        """Until when the session can be resumed, in milliseconds since 1970."""
        limits = self._limits
        return round(
            min(self._issued_ms + limits.session_ttl_s * 1000, self._begun_ms + limits.session_max_s * 1000)
        )

    def start(self) -> None:
        """Send heartbeats and fresh keys from now on."""
        loop = asyncio.get_running_loop()
        at = min(self._outbox.written_at + self._limits.heartbeat_s, self._renew_at)
        self._timer = loop.call_at(at, self._send)

    def stop(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _send(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at:
            if now_ms() < self._begun_ms + self._limits.session_max_s * 1000:
                self._outbox.write(Batch((encode_session(self.issue_key()),)))
            else:
                self._renew_at = float("inf")  # the session cannot be resumed any more
        if now >= self._outbox.written_at + self._limits.heartbeat_s:
            self._outbox.write(Batch((HEARTBEAT,)))
        self.start()
