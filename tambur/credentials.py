"""What names a server and an app on it: ``api_host`` and ``TAMBUR_URL``."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from urllib.parse import SplitResult, quote, unquote, urlsplit

from .errors import ConfigurationError
from .protocol.names import Name, check_credential_name, to_text
from .protocol.paths import app_path

ENVIRONMENT_VARIABLE = "TAMBUR_URL"
URL_FORM = "http://API_KEY:SECRET@HOST[:PORT]/app/APP_ID"

MAX_HOST_CODE_POINTS = 260
"""The longest ``host:port``: a name in the DNS has at most 253 characters, a port 5."""

# RFC 3986 section 3.2.2, without percent-encoding and with the letters of internationalized names.
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[\w.-]+", re.ASCII)
_INTERNATIONAL_HOST = re.compile(r"[\w.-]+")


def check_secret(secret: object) -> str:
    """Return the text of a secret.

    Raises:
        ConfigurationError: if the secret is invalid; the message does not show it.
    """
    try:
        text = to_text(secret)
    except ValueError as error:
        raise ConfigurationError(f"the secret {error}") from None
    if not text:
        raise ConfigurationError("the secret must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("the secret holds a lone surrogate, which has no UTF-8 form") from None
    return text


def check_host(api_host: object) -> str:
    """Return the text of an ``api_host``.

    Raises:
        ConfigurationError: if it has no text, or is a number, which is more likely a port.
    """
    if isinstance(api_host, (int, float)):
        raise ConfigurationError(f"api_host must be a host or host:port, not the number {api_host}")
    try:
        return to_text(api_host)
    except ValueError as error:
        raise ConfigurationError(f"api_host {error}") from None


def base_url(api_host: object, *, ssl: bool = False) -> str:
    """Make ``scheme://host[:port]`` of what a user calls a host.

    Parameters:
        api_host: ``host``, ``host:port`` or a base URL with ``http`` or ``https``; bytes count as UTF-8.
        ssl: use ``https`` where ``api_host`` names no scheme.

    Raises:
        ConfigurationError: if it is none of these, or an ``http`` URL although ``ssl`` is true.
    """
    api_host = check_host(api_host)
    if "@" in api_host:
        # Not echoed: what stands before the "@" is a password.
        raise ConfigurationError(
            f"api_host must be a host alone; for a URL with credentials ({URL_FORM}) use Tambur.from_url"
        )
    written = api_host if "://" in api_host else f"{'https' if ssl else 'http'}://{api_host}"
    rule = "a host, host:port or a base URL with http or https"
    try:
        parts = urlsplit(written)
        netloc = _netloc(parts)
    except ValueError:
        netloc = None
    # urlsplit leaves out line breaks and tabs, which are no more part of a host than any other space.
    if netloc is None or parts.scheme not in ("http", "https") or re.search(r"\s", api_host):
        raise ConfigurationError(f"api_host must be {rule}, not {api_host!r}")
    if parts.path not in ("", "/") or "?" in written or "#" in written:
        raise ConfigurationError(f"api_host must be {rule}, without a path or query: {api_host!r}")
    if ssl and parts.scheme == "http":
        raise ConfigurationError(f"ssl=True contradicts the http URL {api_host!r}")
    return f"{parts.scheme}://{netloc}"


def _netloc(parts: SplitResult) -> str | None:
    """``host[:port]`` in its checked form, ``None`` if it is malformed; a bad port raises ValueError."""
    netloc = parts.netloc.rpartition("@")[2]
    if len(netloc) > MAX_HOST_CODE_POINTS:
        return None
    port = parts.port
    host, colon, written_port = netloc.rpartition(":")
    if not colon or "]" in written_port:  # an IPv6 address without a port ends with "]"
        host, colon, written_port = netloc, "", ""
    if colon and (not written_port.isascii() or not written_port.isdigit() or port == 0):
        return None
    if not (_HOST.fullmatch(host) or (_INTERNATIONAL_HOST.fullmatch(host) and not host.isascii())):
        return None
    return netloc


def is_host(text: str) -> bool:
    """Whether ``text`` is ``host`` or ``host:port`` and nothing more."""
    # Strangers send it, so its length comes first: neither parsing nor the cache shall depend on it.
    return len(text) <= MAX_HOST_CODE_POINTS and _is_host(text)


@lru_cache(maxsize=256)  # a server sees the same few hosts again and again
def _is_host(text: str) -> bool:
    try:
        return base_url(text) == f"http://{text}"
    except ConfigurationError:
        return False


class Credentials:
    """What a ``TAMBUR_URL`` holds.

    Attributes:
        base_url: ``scheme://host[:port]``.

    Raises:
        ConfigurationError: if one of the others may not be one.
    """

    # No dataclass: to import what makes one takes as long as to import all of the publisher.

    def __init__(self, api_key: Name, app_id: Name, secret: Name, base_url: str) -> None:
        self.api_key = check_credential_name("api_key", api_key)
        self.app_id = check_credential_name("app_id", app_id)
        self.secret = check_secret(secret)
        self.base_url = base_url

    def __repr__(self) -> str:
        return f"<Credentials of {self.app_id!r} at {self.base_url}>"

    def at(self, base_url: str) -> Credentials:
        """Make the credentials of the same app on another server."""
        return Credentials(self.api_key, self.app_id, self.secret, base_url)

    @classmethod
    def from_url(cls, url: object) -> Credentials:
        """Parse ``http://API_KEY:SECRET@HOST[:PORT]/app/APP_ID``, its parts percent-encoded.

        Raises:
            ConfigurationError: if it has another form. The text never shows the URL, which holds a secret.
        """
        if not isinstance(url, str):
            raise ConfigurationError(
                f"the URL must be a str of the form {URL_FORM}, not {type(url).__name__}"
            )

        def wrong(rule: str) -> ConfigurationError:
            return ConfigurationError(f"the URL must have the form {URL_FORM}: {rule}")

        if not url.startswith(("http://", "https://")):
            raise wrong("it must begin with http:// or https://")
        if re.search(r"[\s?#]", url):
            # A "?" or "#" in a secret would cut the URL short, and urlsplit leaves out line breaks.
            raise wrong("it may not hold spaces, a query or fragment; are the parts percent-encoded?")
        try:
            parts = urlsplit(url)
            netloc = _netloc(parts)
        except ValueError:
            raise wrong("its host or port is malformed; are the parts percent-encoded?") from None
        if not parts.username or not parts.password:
            raise wrong("API_KEY:SECRET@ is missing; are the parts percent-encoded?")
        if netloc is None:
            raise wrong("its host or port is malformed")
        app = re.fullmatch(r"/app/([^/]+)/?", parts.path)
        if app is None:
            raise wrong("the path must be /app/APP_ID")
        try:
            api_key, secret, app_id = (
                unquote(part, errors="strict") for part in (parts.username, parts.password, app[1])
            )
        except UnicodeDecodeError:
            raise wrong("a percent-encoded part is no UTF-8") from None
        return cls(api_key=api_key, app_id=app_id, secret=secret, base_url=f"{parts.scheme}://{netloc}")

    @classmethod
    def from_env(cls) -> Credentials:
        """Parse the URL in the environment variable ``TAMBUR_URL``.

        Raises:
            ConfigurationError: if it is not set, or malformed.
        """
        url = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if not url:
            raise ConfigurationError(
                f"{ENVIRONMENT_VARIABLE} is not set; it takes the form {URL_FORM}, "
                "and 'tambur new-app APP_ID' prints one with fresh credentials"
            )
        try:
            return cls.from_url(url)
        except ConfigurationError as error:
            raise ConfigurationError(f"{ENVIRONMENT_VARIABLE}: {error}") from None

    def to_url(self) -> str:
        """The ``TAMBUR_URL`` of these credentials. It holds the secret."""
        scheme, _, netloc = self.base_url.partition("://")
        user = f"{quote(self.api_key, safe='')}:{quote(self.secret, safe='')}"
        return f"{scheme}://{user}@{netloc}{app_path(self.app_id)}"
