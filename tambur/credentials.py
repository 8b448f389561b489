"""The address of a server and the credentials of an app: ``api_host`` and ``TAMBUR_URL``."""

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
"""The longest ``host:port``: a DNS name has at most 253 characters, a port 5."""

# RFC 3986 section 3.2.2, without percent-encoding. Internationalized names may contain other letters.
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
        raise ConfigurationError("the secret must not contain lone surrogates") from None
    return text


def check_host(api_host: object) -> str:
    """Return the text of an ``api_host``.

    Raises:
        ConfigurationError: if it is not text. A number is refused, since it is probably a port.
    """
    if isinstance(api_host, (int, float)):
        raise ConfigurationError(f"api_host must be a host or host:port, not the number {api_host}")
    try:
        return to_text(api_host)
    except ValueError as error:
        raise ConfigurationError(f"api_host {error}") from None


def base_url(api_host: object, *, ssl: bool = False) -> str:
    """Make ``scheme://host[:port]`` from an ``api_host``.

    Parameters:
        api_host: ``host``, ``host:port`` or a base URL with ``http`` or ``https``; bytes count as UTF-8.
        ssl: use ``https`` if ``api_host`` has no scheme.

    Raises:
        ConfigurationError: if ``api_host`` has another form, or is an ``http`` URL while ``ssl`` is true.
    """
    api_host = check_host(api_host)
    if "@" in api_host:
        # The message does not show it, since a password may precede the "@".
        raise ConfigurationError(
            f"api_host must not contain '@'; for a URL with credentials ({URL_FORM}) use Tambur.from_url"
        )
    written = api_host if "://" in api_host else f"{'https' if ssl else 'http'}://{api_host}"
    rule = "a host, host:port or a base URL with http or https"
    try:
        parts = urlsplit(written)
        netloc = _netloc(parts)
    except ValueError:
        netloc = None
    # urlsplit drops line breaks and tabs, which would make other text a valid host.
    if netloc is None or parts.scheme not in ("http", "https") or re.search(r"\s", api_host):
        raise ConfigurationError(f"api_host must be {rule}, not {api_host!r}")
    if parts.path not in ("", "/") or "?" in written or "#" in written:
        raise ConfigurationError(f"api_host must be {rule}, without a path or query: {api_host!r}")
    if ssl and parts.scheme == "http":
        raise ConfigurationError(f"ssl=True contradicts the http URL {api_host!r}")
    return f"{parts.scheme}://{netloc}"


def _netloc(parts: SplitResult) -> str | None:
    """``host[:port]`` without credentials; ``None`` or ValueError if the host or the port is malformed."""
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
    # Any client may send the text. The check of its length bounds the cost of parsing and the cache.
    return len(text) <= MAX_HOST_CODE_POINTS and _is_host(text)


@lru_cache(maxsize=256)  # a server sees the same few hosts again and again
def _is_host(text: str) -> bool:
    try:
        return base_url(text) == f"http://{text}"
    except ConfigurationError:
        return False


def host_and_port(url: str) -> str:
    """``host:port`` of a URL, for error texts: without credentials, and with the scheme's default port."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    if parts.port is not None:
        return netloc
    return f"{netloc}:{443 if parts.scheme in ('https', 'wss') else 80}"


class Credentials:
    """The parts of a ``TAMBUR_URL``.

    Attributes:
        api_key: identifies the account.
        app_id: identifies the app.
        secret: the secret that the server shares.
        base_url: ``scheme://host[:port]``.

    Raises:
        ConfigurationError: if a credential is invalid.
    """

    # Not a dataclass: importing dataclasses takes as long as importing the whole publisher.

    def __init__(self, api_key: Name, app_id: Name, secret: Name, base_url: str) -> None:
        self.api_key = check_credential_name("api_key", api_key)
        self.app_id = check_credential_name("app_id", app_id)
        self.secret = check_secret(secret)
        self.base_url = base_url

    def __repr__(self) -> str:
        return f"<Credentials of {self.app_id!r} at {self.base_url}>"

    def at(self, base_url: str) -> Credentials:
        """The credentials of the same app on another server."""
        return Credentials(self.api_key, self.app_id, self.secret, base_url)

    @classmethod
    def from_url(cls, url: object) -> Credentials:
        """Parse ``http://API_KEY:SECRET@HOST[:PORT]/app/APP_ID``, its parts percent-encoded.

        Raises:
            ConfigurationError: if the URL has another form. The message does not show it, since it contains
                a secret.
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
            # A "?" or "#" in a secret would cut the URL short, and urlsplit drops line breaks.
            raise wrong("it must not contain spaces, a query or fragment; are the parts percent-encoded?")
        try:
            parts = urlsplit(url)
            netloc = _netloc(parts)
        except ValueError:
            raise wrong("invalid host or port; are the parts percent-encoded?") from None
        if not parts.username or not parts.password:
            raise wrong("API_KEY:SECRET@ is missing; are the parts percent-encoded?")
        if netloc is None:
            raise wrong("invalid host or port")
        app = re.fullmatch(r"/app/([^/]+)/?", parts.path)
        if app is None:
            raise wrong("the path must be /app/APP_ID")
        try:
            api_key, secret, app_id = (
                unquote(part, errors="strict") for part in (parts.username, parts.password, app[1])
            )
        except UnicodeDecodeError:
            raise wrong("a percent-encoded part is not UTF-8") from None
        return cls(api_key=api_key, app_id=app_id, secret=secret, base_url=f"{parts.scheme}://{netloc}")

    @classmethod
    def from_env(cls) -> Credentials:
        """Parse the URL in the environment variable ``TAMBUR_URL``.

        Raises:
            ConfigurationError: if the variable is not set, or the URL is invalid.
        """
        url = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if not url:
            raise ConfigurationError(
                f"{ENVIRONMENT_VARIABLE} is not set; it must have the form {URL_FORM}; "
                "'tambur new-app APP_ID' prints one with new credentials"
            )
        try:
            return cls.from_url(url)
        except ConfigurationError as error:
            raise ConfigurationError(f"{ENVIRONMENT_VARIABLE}: {error}") from None

    def to_url(self) -> str:
        """The ``TAMBUR_URL`` of these credentials. It contains the secret."""
        scheme, _, netloc = self.base_url.partition("://")
        user = f"{quote(self.api_key, safe='')}:{quote(self.secret, safe='')}"
        return f"{scheme}://{user}@{netloc}{app_path(self.app_id)}"
