"""Why a subscriber is refused, in a form that tambur.js can read: sections 5 and 6 of the protocol."""

from __future__ import annotations

from typing import NamedTuple

from starlette.responses import PlainTextResponse, Response

from ...protocol.paths import split_subscribe_path
from ..counters import Counts

# A page cannot read the answer to its WebSocket handshake. So tambur.js asks the balancer after a failure,
# and reads the code from this header, which no proxy sends by itself.
_CODE_HEADER = "Tambur-Refused"


class Refusal(NamedTuple):
    """A refusal that lasts until the page or the server's configuration changes.

    Attributes:
        status: the HTTP status.
        code: for programs, such as ``"unknown_app"``.
        reason: for people.
    """

    status: int
    code: str
    reason: str

    @property
    def headers(self) -> dict[str, str]:
        """Headers that let a page of any origin read the code."""
        return {
            _CODE_HEADER: self.code,
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": _CODE_HEADER,
            "Cache-Control": "no-store",
        }

    def record(self, counts: Counts, raw_path: bytes, transport: str) -> None:
        """Count the refusal, and log it for the operator.

        Parameters:
            raw_path: the requested path, ``/API_KEY/APP_ID``.
            transport: ``"websocket"`` or ``"longpoll"``, ``"balancer"`` for a page that asks where to
                connect, ``"http"`` for any request to another host.
        """
        counts.refused[self.code] += 1
        names = split_subscribe_path(raw_path)
        app = None if names is None else names[1]
        facts = {"status": self.status, "app": app, "transport": transport, "reason": self.reason}
        counts.log_refusal("subscriber refused", facts)

    def answer(self) -> Response:
        """Make the HTTP answer, with the reason as plain text."""
        return PlainTextResponse(f"{self.reason}\n", self.status, self.headers)


UNKNOWN_APP = Refusal(404, "unknown_app", "there is no such app here; check the api_key and the app_id")
NO_LONG_POLLING = Refusal(404, "no_long_polling", "this app has no long polling")


def host_not_allowed(host: str) -> Refusal:
    """The request is for another host than the server's ``public_hosts``."""
    return Refusal(421, "host_not_allowed", f"{host!r} is not among this server's public_hosts")


def origin_not_allowed(origin: str | None) -> Refusal:
    """The page's origin is not among the app's ``allowed_origins``; ``None`` if the request names no page."""
    if origin is None:
        reason = "the request has neither an Origin nor a Referer header, and this app has allowed_origins"
    else:
        reason = f"pages of {origin!a:.100} may not subscribe to this app"
    return Refusal(403, "origin_not_allowed", reason)
