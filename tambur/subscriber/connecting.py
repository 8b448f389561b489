"""Why a subscriber cannot connect, in words: the errors of the system, of websockets, and refusals."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import urllib.request
from typing import NoReturn

from websockets.exceptions import InvalidProxy, InvalidStatus, WebSocketException

from ..credentials import host_and_port
from ..errors import SubscriberClosedError, explain_connection_error
from ..printable import one_line

MAX_REASON_CODE_POINTS = 500
"""How much of a server's reason an error shows."""


def raise_not_connected(
    url: str, timeout_s: float, error: OSError | ValueError | WebSocketException
) -> NoReturn:
    """Raise the error for a connection that could not be made.

    Parameters:
        url: the server's address.
        timeout_s: how long the attempt could take, in seconds.
        error: the reason.

    Raises:
        SubscriberClosedError: it names the server, the reason and what to check.
    """
    server = host_and_port(url)
    is_proxied = _is_proxied(url)
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if 300 <= status < 400:
            location = error.response.headers.get("Location", "")
            reason = f"a redirect to {location!r:.200}, which is not followed; is api_host correct?"
        else:
            reason = (error.response.body or b"").decode("utf-8", "replace")
        reason = one_line(reason, MAX_REASON_CODE_POINTS)
        raise SubscriberClosedError(f"{server} answered {status}: {reason}", code=status) from error
    if isinstance(error, InvalidProxy):
        # Neither the text nor a chained exception may show the proxy's URL, which contains a password.
        raise SubscriberClosedError(
            f"cannot connect to {server}: the proxy's URL in the environment is invalid; it must be "
            "http://[USER:PASSWORD@]HOST:PORT, reserved characters percent-encoded"
        ) from None
    if not isinstance(error, (OSError, WebSocketException)):
        # As above: Python refuses some URLs itself, and may quote a part of them.
        raise SubscriberClosedError(
            f"cannot connect to {server}: its host name, or a proxy's URL in the environment, is invalid"
        ) from None
    if type(error) is TimeoutError and error.errno is None:
        why = f"no connection within {timeout_s:g} s; is the host reachable from here?"
    elif isinstance(error, OSError):
        why = explain_connection_error(_of_system(error), ca_variable="SSL_CERT_FILE")
    else:
        hint = "; does the server expect https?" if url.startswith("ws:") and not is_proxied else ""
        why = one_line(str(error), MAX_REASON_CODE_POINTS) + hint
    if is_proxied:
        why = f"{why.partition(';')[0]}; check the proxy in the environment, or name the server in no_proxy"
    raise SubscriberClosedError(f"cannot connect to {server}: {why}") from error


def _is_proxied(url: str) -> bool:
    schemes = ("wss", "socks", "https") if url.startswith("wss:") else ("ws", "socks", "https", "http")
    found = urllib.request.getproxies()
    return any(scheme in found for scheme in schemes) and not urllib.request.proxy_bypass(host_and_port(url))


_ERRNO = re.compile(r"\[Errno ([0-9]{1,6})\]")


def _of_system(error: OSError) -> OSError:
    """An error of asyncio with the system's own words."""
    if isinstance(error, (socket.gaierror, ssl.SSLError)):
        return error
    # asyncio repeats the address, and joins the errors of several addresses of a host in one text.
    numbers = [error.errno] if error.errno is not None else map(int, _ERRNO.findall(str(error)))
    # A refusal tells most: the host is up, and lacks a server.
    number = max(numbers, key=lambda number: number == errno.ECONNREFUSED, default=None)
    return error if number is None else OSError(number, os.strerror(number))
