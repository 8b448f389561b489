"""The URL of a broker."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from ....errors import ConfigurationError

MEMORY = ("memory:", "memory://")

_DEFAULT_PORT = 6379
_DEFAULT_SENTINEL_PORT = 26379
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

_URL = re.compile(
    r"(?P<scheme>redis|rediss|redis\+sentinel)://"
    r"(?:(?P<username>[^:@/?#]*):(?P<password>[^:@/?#]+)@)?"
    r"(?P<hosts>[^@/?#]+)"
    r"(?:/(?P<service>(?=[^/?#]*[^0-9/?#])[^/?#]+))?"
    r"(?:/(?P<database>[0-9]{0,6}))?"
    r"(?:\?(?P<query>[^#]+))?"
)
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:,\s]+))(?::(?P<port>[0-9]{1,5}))?")

# Errors quote nothing of a malformed URL: any part of it may belong to the password.
_FORM = (
    "the broker must be 'memory://' or have the form 'redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]', "
    "with 'rediss' for TLS, or "
    "'redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DATABASE]'; after a '?' "
    f"rediss takes {', '.join(_TLS_OPTIONS)}; reserved characters of a password are percent-encoded"
)


@dataclass(frozen=True)
class RedisUrl:
    """The address of a Redis, or of the Sentinels that know it.

    Attributes:
        hosts: host and port of each; only one without a service.
        service: the Sentinels' name for the Redis; ``None`` for a direct connection.
        database: its number.
        username, password: of Redis; ``None`` if it needs none.
        tls: the files for a connection with TLS; ``None`` without TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str | None
    database: int
    username: str | None
    password: str | None = field(repr=False)
    tls: dict[str, str] | None


def parse_url(url: str) -> RedisUrl | None:
    """Take a broker's URL apart.

    Returns:
        ``None`` for the memory of a single process.

    Raises:
        ConfigurationError: if the URL has another form.
    """
    if url in MEMORY:
        return None
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(_FORM)
    part = {name: unquote(value) for name, value in match.groupdict("").items() if name != "query"}
    is_sentinel = part["scheme"] == "redis+sentinel"
    hosts = [
        _host(text, _DEFAULT_SENTINEL_PORT if is_sentinel else _DEFAULT_PORT)
        for text in match["hosts"].split(",")
    ]
    options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    is_tls = part["scheme"] == "rediss"
    if (
        bool(part["service"]) is not is_sentinel
        or (len(hosts) > 1 and not is_sentinel)
        or not options.keys() <= set(_TLS_OPTIONS if is_tls else ())
    ):
        raise ConfigurationError(_FORM)
    return RedisUrl(
        tuple(hosts),
        part["service"] or None,
        int(part["database"] or 0),
        part["username"] or None,
        part["password"] or None,
        options if is_tls else None,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or default_port) not in range(1, 65536):
        raise ConfigurationError(_FORM)
    host = match["ipv6"] or match["name"]
    try:
        host.encode("idna")  # as a look-up does
    except UnicodeError:
        raise ConfigurationError(_FORM) from None
    return host, int(match["port"] or default_port)
