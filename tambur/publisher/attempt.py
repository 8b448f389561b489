"""One attempt to send a request, over a pool of connections."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar

import requests
import urllib3
from requests.utils import select_proxy

from ..credentials import host_and_port
from ..errors import ConfigurationError
from .adapter import Adapter
from .retries import (
    FOREIGN_ERRORS,
    Failure,
    Route,
    broken,
    late,
    of_exception,
    of_response,
    of_unknown_answer,
)

_MAX_REASON_BYTES = 2048

_MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""The most that is read of an answer to a query; a server answers with 4 MiB at most."""

_PIECE_BYTES = 64 * 1024

T = TypeVar("T")

logger = logging.getLogger("tambur")


class _Session(requests.Session):
    """A session that stores no cookies and ignores the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # otherwise a redirect would make it read .netrc
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        # No redirect is followed, so nothing parses a Location, which need not be a URL.
        return None


class Sender:
    """Connections to one server.

    Parameters:
        url: the beginning of every request's URL.
        headers: the headers of every request.
        pool_maxsize: how many idle connections stay open.
        session: lends its adapters, proxies, ``verify`` and ``cert``; ``None`` for an own session, with the
            proxies and the CA bundle of the environment.

    Attributes:
        template: the request that every other request copies, with the headers and with the URL in the form
            that is sent and signed. To prepare each request anew would cost more than to sign it.

    Raises:
        ConfigurationError: if requests cannot send to such a URL, or the proxy's URL is invalid.
    """

    def __init__(
        self, url: str, headers: dict[str, str], pool_maxsize: int, session: requests.Session | None
    ) -> None:
        try:
            self.template = requests.Request("POST", url, headers=headers).prepare()
        except (requests.RequestException, ValueError) as error:
            raise ConfigurationError(f"cannot send requests to {url!r}: {error}") from None
        self._pool_maxsize = pool_maxsize
        self._lender = session
        # Looking this up in the environment takes as long as the rest of a publish.
        settings = session if session is not None else requests.Session()
        verify = None if settings.verify is True else settings.verify
        found = settings.merge_environment_settings(self.template.url, {}, None, verify, None)
        self._proxies, self._verify, self._cert = found["proxies"], found["verify"], found["cert"]
        self._route = _route(self.template.url or "", self._proxies)
        self._pid = os.getpid()
        self._session = self._open()
        self._unwarned = iter((True,))  # of several threads, next() gives it to one

    def _open(self) -> requests.Session:
        session = _Session()
        if self._lender is not None:
            session.adapters = OrderedDict(self._lender.adapters)
        else:
            adapter = Adapter(pool_connections=1, pool_maxsize=self._pool_maxsize)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
        return session

    def close(self) -> None:
        """Close the idle connections, but not those of a lent session."""
        if self._lender is None:
            closing, self._session = self._session, self._open()
            closing.close()

    def send(self, request: requests.PreparedRequest, timeouts: tuple[float, float]) -> Failure | int:
        """Send a request once.

        Parameters:
            timeouts: seconds to wait for the connection, and for each piece of the answer.

        Returns:
            The status of a success: a 2xx that is not an HTML page.
        """
        response = self._send(request, timeouts)
        if isinstance(response, Failure):
            return response
        is_whole = _read_body(response, give_up_at=time.monotonic() + timeouts[1])
        if not 200 <= response.status_code < 300:
            return of_response(response, self._route)
        if not is_whole:
            return broken(self._route, "the answer ended early")
        if _is_html(response):
            return of_response(response, self._route)
        if response.status_code != 204 and next(self._unwarned, False):
            logger.warning(
                "%s answers publishes with %d, a Tambur server with 204; is api_host correct?",
                self._route,
                response.status_code,
            )
        return response.status_code

    def ask(
        self,
        request: requests.PreparedRequest,
        timeouts: tuple[float, float],
        parse: Callable[[Any], T],
    ) -> Failure | T:
        """Send a request once, whose answer is JSON.

        Parameters:
            timeouts: as in :meth:`send`.
            parse: makes the result of the decoded JSON. It may raise KeyError, TypeError or ValueError.
        """
        response = self._send(request, timeouts)
        if isinstance(response, Failure):
            return response
        give_up_at = time.monotonic() + timeouts[1]
        if response.status_code != 200:
            _read_body(response, give_up_at=give_up_at)
            success = 200 < response.status_code < 300
            make = of_unknown_answer if success else of_response
            return make(response, self._route)
        is_whole = _read_body(response, give_up_at=give_up_at, max_bytes=_MAX_ANSWER_BYTES)
        if not is_whole:
            return broken(self._route, "the answer ended early")
        if time.monotonic() > give_up_at:
            return late(self._route, timeouts)
        try:
            return parse(json.loads(response.content))
        except (KeyError, TypeError, ValueError, RecursionError):
            return of_unknown_answer(response, self._route)

    def _send(
        self, request: requests.PreparedRequest, timeouts: tuple[float, float]
    ) -> Failure | requests.Response:
        if os.getpid() != self._pid:
            self._leave_parent()
        handled = sys.exc_info()[1]
        try:
            return self._session.send(
                request,
                stream=True,  # the answer may be endless
                timeout=timeouts,
                verify=self._verify,
                cert=self._cert,
                proxies=self._proxies,
                allow_redirects=False,
            )
        except FOREIGN_ERRORS as error:
            return of_exception(error, self._route, timeouts, handled=handled)

    def _leave_parent(self) -> None:
        """Leave the connections to the parent after a fork: two writers would garble them."""
        if self._lender is not None:
            for adapter in self._lender.adapters.values():
                adapter.close()  # closes this process's copies; the parent's stay open
        self._session = self._open()
        self._pid = os.getpid()


def check_timeout(timeout: object) -> tuple[float, float]:
    """Return seconds to wait for a connection and for an answer, of one number or a pair.

    Raises:
        ConfigurationError: if it is neither.
    """
    pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(pair) == 2 and all(
        isinstance(s, (int, float)) and not isinstance(s, bool) and 0 < s < math.inf for s in pair
    ):
        return pair
    raise ConfigurationError(
        f"timeout must be a positive number of seconds, or a pair for connection and answer, not {timeout!r}"
    )


def _route(url: str, proxies: Any) -> Route:
    proxy = select_proxy(url, proxies)
    return Route(host_and_port(url), url.startswith("https:"), _proxy_address(proxy) if proxy else None)


def _proxy_address(url: str) -> str:
    """``host:port`` of a proxy, without user and password."""
    try:
        proxy = urllib3.util.parse_url(url if "://" in url else f"http://{url}")
    except (ValueError, urllib3.exceptions.HTTPError):
        proxy = urllib3.util.Url()
    if not proxy.host:
        # The text does not show the URL, since the password may stand anywhere in it.
        raise ConfigurationError(
            "the proxy's URL, in the environment or of the session, is invalid; it must be "
            "http://[USER:PASSWORD@]HOST:PORT, reserved characters percent-encoded"
        )
    return proxy.host if proxy.port is None else f"{proxy.host}:{proxy.port}"


def _read_body(response: requests.Response, *, give_up_at: float, max_bytes: int = _MAX_REASON_BYTES) -> bool:
    """Read the beginning of an answer's body into the response, and release the connection.

    Parameters:
        give_up_at: when to stop, by :func:`time.monotonic`.
        max_bytes: how much to read.

    Returns:
        False if the body broke off.
    """
    body = bytearray()
    is_whole = True
    response.raw.enforce_content_length = True  # urllib3 1.26 would take a part of a body for the whole
    try:
        # Byte by byte: if a larger piece breaks off, its beginning is lost.
        for piece in response.iter_content(1 if max_bytes == _MAX_REASON_BYTES else _PIECE_BYTES):
            body += piece
            if len(body) >= max_bytes or time.monotonic() > give_up_at:
                break
    except FOREIGN_ERRORS:
        is_whole = False
        body += b" (the answer breaks off here)"
    response.close()
    response._content = bytes(body)  # noqa: SLF001 - for error.response.text
    # The answer may name a charset that raises or that drops everything.
    response.encoding = "utf-8"
    return is_whole


_HTML_START = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html\b", re.IGNORECASE)


def _is_html(response: requests.Response) -> bool:
    """Whether an answer is an HTML page, such as a captive portal's."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_declared = media_type in ("text/html", "application/xhtml+xml")
    return bool(
        _HTML_START.match(response.content) or (is_declared and re.search(rb"<[!?a-zA-Z]", response.content))
    )
