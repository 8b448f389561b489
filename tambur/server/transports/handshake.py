"""The answer to a WebSocket's opening handshake (RFC 6455 section 4.2)."""

from __future__ import annotations

from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from ..apps import Apps
from ..config import App
from ..counters import Counts
from .refusal import UNKNOWN_APP, Refusal, host_not_allowed, origin_not_allowed

# The headers that websockets parses, by the beginning of their names.
_PARSED = ("connection", "upgrade", "sec-websocket-")


class Handshakes:
    """Answers handshakes.

    Parameters:
        apps: the apps that may be subscribed to.
        public_hosts: the values of ``Host`` that are answered; any if empty.
        counts: where refusals are counted.
    """

    def __init__(self, apps: Apps, public_hosts: tuple[str, ...], counts: Counts) -> None:
        self._apps = apps
        self._public_hosts = public_hosts
        self._counts = counts

    def answer(self, request: Request, protocol: ServerProtocol) -> tuple[Response, App | None]:
        """Make the answer.

        Returns:
            The answer, and the app. The library may still refuse what is accepted here.
        """
        found = self._find(request)
        if isinstance(found, Refusal):
            found.record(self._counts, _raw_path(request), "websocket")
            response = protocol.reject(found.status, f"{found.reason}\n")
            response.headers.update(found.headers)
            return response, None
        for name, value in request.headers.raw_items():
            # Some releases of websockets take this for their own failure, or fail when they quote the value.
            if not value.isascii() and name.lower().startswith(_PARSED):
                return protocol.reject(400, f"{name} must be ASCII\n"), None
        return protocol.accept(request), found

    def _find(self, request: Request) -> App | Refusal:
        host, origin = _header(request.headers, "Host") or "", _header(request.headers, "Origin")
        if self._public_hosts and host.lower() not in self._public_hosts:
            return host_not_allowed(host)
        app = self._apps.at(_raw_path(request))
        if app is None:
            return UNKNOWN_APP
        return app if app.allows_origin(origin) else origin_not_allowed(origin)


def _raw_path(request: Request) -> bytes:
    return request.path.partition("?")[0].encode("ascii", "surrogateescape")


def _header(headers: Headers, name: str) -> str | None:
    try:
        return headers.get(name)
    except MultipleValuesError:
        return ", ".join(headers.get_all(name))
