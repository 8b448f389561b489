"""Access to the console: hosts, the password, and the page's own origin for changes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...loopback import is_loopback
from ..logs import line
from .password import PasswordHash

TOKEN_HEADER = "Tambur-Console"  # noqa: S105 - the name of a header
"""Requests that change something carry the page's token in this header."""

WRONG_PASSWORD_PAUSE_S = 1.0
"""Seconds until another password is checked after a wrong one."""

MAX_WAITING = 8
"""How many requests may wait for their password to be checked; one more is refused with 503."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_PORT = re.compile(r":[0-9]{1,5}\Z")
_MAX_HOST_CHARACTERS = 300

logger = logging.getLogger("tambur.server")


class Access:
    """An ASGI application in front of the console's, which refuses everybody else.

    Parameters:
        app: the console.
        is_local: whether it listens on loopback, where only loopback hosts are answered. Otherwise another
            site could point a host name of its own at this machine, and its page would pass for the console.
        password: the hash of the password; ``None`` for no password.

    Attributes:
        token: what the page sends with requests that change something.
    """

    def __init__(self, app: ASGIApp, *, is_local: bool, password: PasswordHash | None) -> None:
        self._app = app
        self._is_local = is_local
        self._password = None if password is None else _Password(password)
        self.token = secrets.token_urlsafe(24)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = await self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    async def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._is_local and not _is_loopback(host):
            text = f"the console answers loopback hosts only, such as 127.0.0.1, not {host!a:.100}\n"
            return PlainTextResponse(text, 421)
        # Another site's page cannot read an answer, but could use up all connections.
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] != "/":
            return PlainTextResponse("the console answers its own page only\n", 403)
        if self._password is not None:
            refusal = await self._password.refusal(headers.get("authorization", ""), scope["client"])
            if refusal is not None:
                return refusal
        if scope["method"] not in ("GET", "HEAD"):
            if headers.get("origin", "").partition("://")[2] != host:
                return PlainTextResponse("only the console's own page may change something\n", 403)
            if not hmac.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self.token.encode()):
                return PlainTextResponse(f"the header {TOKEN_HEADER} has not the page's token\n", 403)
        return None


def _is_loopback(host: str) -> bool:
    return len(host) <= _MAX_HOST_CHARACTERS and is_loopback(_PORT.sub("", host))


class _Password:
    """Checks passwords one after another, since each check takes a tenth of a second of a processor."""

    def __init__(self, hashed: PasswordHash) -> None:
        self._hash = hashed
        self._key = secrets.token_bytes(32)
        self._right: bytes | None = None  # the last right one, as a digest
        self._checking = asyncio.Lock()
        self._waiting = 0

    async def refusal(self, authorization: str, client: tuple[str, int] | None) -> Response | None:
        """Make the answer to a request without the right password; ``None`` for the right one.

        Parameters:
            authorization: the header of HTTP Basic authentication (RFC 7617). Any user name will do.
            client: address and port of the client, for the log.
        """
        given = _basic_password(authorization)
        if given is None:
            return _ask()
        digest = hmac.digest(self._key, given, hashlib.sha256)
        if self._is_right(digest):
            return None
        if self._waiting >= MAX_WAITING:
            return PlainTextResponse("too many passwords wait to be checked\n", 503, {"Retry-After": "10"})
        self._waiting += 1
        try:
            async with self._checking:
                if self._is_right(digest):
                    return None
                if await asyncio.to_thread(self._hash.matches, given):
                    self._right = digest
                    return None
                logger.warning(line("wrong console password", client=client and client[0]))
                await asyncio.sleep(WRONG_PASSWORD_PAUSE_S)
        finally:
            self._waiting -= 1
        return _ask()

    def _is_right(self, digest: bytes) -> bool:
        return self._right is not None and hmac.compare_digest(self._right, digest)


def _ask() -> Response:
    headers = {"WWW-Authenticate": 'Basic realm="Tambur console", charset="UTF-8"'}
    return PlainTextResponse("the console needs its password\n", 401, headers)


def _basic_password(authorization: str) -> bytes | None:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        _, separator, password = base64.b64decode(credentials, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password if separator else None
