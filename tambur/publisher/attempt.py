"""One attempt to send a request, over a pool of connections."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import OrderedDict
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.utils import select_proxy

from ..errors import ConfigurationError
from .adapter import Adapter
from .retries import FOREIGN_ERRORS, Failure, Route, broken, of_exception, of_response

_MAX_REASON_BYTES = 2048

logger = logging.getLogger("tambur")


class _Session(requests.Session):
    """A session that keeps nothing of an answer, and asks no environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # else .netrc would be read when an answer is a redirect
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        # No redirect is followed, so no Location is looked at: it need not even be a URL.
        return None


class Sender:
    """Connections to one server.

    Parameters:
        url: what every request's URL begins with.
        headers: what every request has.
        pool_maxsize: how many idle connections are kept.
        session: lends its adapters, proxies, ``verify`` and ``cert``; ``None`` for our own, with the
            proxies and the CA bundle of the environment.

    Attributes:
        template: what every request begins as: its headers, and that URL in the form in which it is sent and
            signed. Preparing each anew would cost more than signing it.

    Raises:
        ConfigurationError: if requests cannot send to such a URL, or the proxy's URL is invalid.
    """

    def __init__(
        self, url: str, headers: dict[str, str], pool_maxsize: int, session: requests.Session | None
    ) -> None:
        try:
            self.template = requests.Request("POST", url, headers=headers).prepare()
        except (requests.RequestException, ValueError) as error:
            raise ConfigurationError(f"nothing can be sent to {url!r}: {error}") from None
        self._pool_maxsize = pool_maxsize
        self._lender = session
        # Looked up once: in the environment, it costs as much as the rest of a publish.
        settings = session if session is not None else requests.Session()
        verify = None if settings.verify is True else settings.verify
        found = settings.merge_environment_settings(self.template.url, {}, None, verify, None)
        self._proxies, self._verify, self._cert = found["proxies"], found["verify"], found["cert"]
        self._route = _route(self.template.url or "", self._proxies)
        self._pid = os.getpid()
        self._session = self._open()
        self._has_warned = False

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
        """Close idle connections; those of a lent session stay."""
        if self._lender is None:
            closing, self._session = self._session, self._open()
            closing.close()

    def send(self, request: requests.PreparedRequest, timeouts: tuple[float, float]) -> Failure | None:
        """Send a request once.

        Parameters:
            timeouts: for connecting and for each wait for data, in seconds.

        Returns:
            ``None`` if the server accepted it.
        """
        if os.getpid() != self._pid:
            self._leave_parent()
        handled = sys.exc_info()[1]
        try:
            response = self._session.send(
                request,
                stream=True,  # an answer may be endless
                timeout=timeouts,
                verify=self._verify,
                cert=self._cert,
                proxies=self._proxies,
                allow_redirects=False,
            )
        except FOREIGN_ERRORS as error:
            return of_exception(error, self._route, timeouts, handled=handled)
        is_whole = _read_body(response, give_up_at=time.monotonic() + timeouts[1])
        if not 200 <= response.status_code < 300:
            return of_response(response, self._route)
        if not is_whole:
            return broken(self._route, "the answer ended early")
        if _is_html(response):
            return of_response(response, self._route)
        if response.status_code != 204 and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s answers publishes with %d, a Tambur server with 204; is api_host correct?",
                self._route,
                response.status_code,
            )
        return None

    def _leave_parent(self) -> None:
        """After a fork, the connections are the parent's: both writing to one would garble it."""
        if self._lender is not None:
            for adapter in self._lender.adapters.values():
                adapter.close()  # this process's copies of them; the parent's stay open
        self._session = self._open()
        self._pid = os.getpid()


def _route(url: str, proxies: Any) -> Route:
    server = urllib3.util.parse_url(url)
    is_tls = server.scheme == "https"
    proxy = select_proxy(url, proxies)
    return Route(
        server=f"{server.host}:{server.port or (443 if is_tls else 80)}",
        is_tls=is_tls,
        proxy=_proxy_address(proxy) if proxy else None,
    )


def _proxy_address(url: str) -> str:
    """``host:port`` of a proxy, without user and password."""
    try:
        proxy = urllib3.util.parse_url(url if "://" in url else f"http://{url}")
    except (ValueError, urllib3.exceptions.HTTPError):
        proxy = urllib3.util.Url()
    if not proxy.host:
        # Nor does the text show it: what was meant for the password may stand anywhere in it.
        raise ConfigurationError(
            "the proxy's URL, in the environment or of the session, is invalid; it must be "
            "http://[USER:PASSWORD@]HOST:PORT, reserved characters percent-encoded"
        )
    return proxy.host if proxy.port is None else f"{proxy.host}:{proxy.port}"


def _read_body(response: requests.Response, *, give_up_at: float) -> bool:
    """Read the beginning of an answer's body, as far as it comes, and let go of the connection.

    Returns:
        Whether the body did not break off before that.
    """
    body = bytearray()
    is_whole = True
    response.raw.enforce_content_length = True  # urllib3 1.26 would take a part of a body for the whole
    try:
        # Byte by byte, since what came before a break is lost with any larger piece.
        for byte in response.iter_content(1):
            body += byte
            if len(body) >= _MAX_REASON_BYTES or time.monotonic() > give_up_at:
                break
    except FOREIGN_ERRORS:
        is_whole = False
        body += b" (the answer breaks off here)"
    response.close()
    response._content = bytes(body)  # noqa: SLF001 - so that error.response.text works as it always did
    # Whatever charset it names: there are some for which decoding raises, or leaves nothing.
    response.encoding = "utf-8"
    return is_whole


_HTML_START = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html\b", re.IGNORECASE)


def _is_html(response: requests.Response) -> bool:
    """Whether an answer is a page for a person, as a captive portal sends one."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_declared = media_type in ("text/html", "application/xhtml+xml")
    return bool(
        _HTML_START.match(response.content) or (is_declared and re.search(rb"<[!?a-zA-Z]", response.content))
    )
