"""What a server is told: dataclasses, and how a TOML file or the environment becomes them.

The file is documented in docs/reference/configuration.md.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..credentials import Credentials, check_secret, is_host
from ..errors import ConfigurationError
from ..protocol.names import check_credential_name
from ..protocol.tokens import TokenSigner
from .broker import AppKey
from .broker.redis.urls import parse_url

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_WORKERS = 1000

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")


class _SettingError(ConfigurationError):
    """One setting breaks a rule; ``key`` is its name in the table."""

    def __init__(self, key: str, rule: str) -> None:
        super().__init__(f"{key} {rule}")
        self.key = key


def _require(condition: object, key: str, rule: str) -> None:
    if not condition:
        raise _SettingError(key, rule)


@dataclass(frozen=True)
class Limits:
    """What one client may cost the others. The units are in the names; sizes are of encoded bytes.

    Attributes:
        max_connections: of one process, subscribers and publishers together.
        max_message_bytes: of a published or direct message, as UTF-8.
        max_header_bytes: of a request line and its headers together.
        request_timeout_s: from the first byte of a request to its last, and for a TLS handshake; and how
            long an answer may wait to be read.
        max_unsent_bytes: what may wait for a subscriber that reads too slowly before he is dropped.
        max_streams_per_subscriber: how many streams a connection may be subscribed to at once.
        max_commands_per_s: how many commands of one connection are answered; more wait for their turn. Pings
            and other frames that are no whole command count, too.
        max_long_polling_subscribers: how many subscribers may poll at once.
        max_claims: how many publishes are remembered, to deliver each once.
        ping_interval_s: how often a connection is asked for a sign of life, and how long a poll waits.
        ping_timeout_s: after how long without a sign of life or a poll it is dropped.
        shutdown_timeout_s: how long a shutdown waits for connections to close.
    """

    max_connections: int = 16 * 1024
    max_message_bytes: int = 64 * 1024
    max_header_bytes: int = 16 * 1024
    request_timeout_s: float = 10.0
    max_unsent_bytes: int = 1024 * 1024
    max_streams_per_subscriber: int = 1000
    max_commands_per_s: float = 1000.0
    max_long_polling_subscribers: int = 10_000
    max_claims: int = 1_000_000
    ping_interval_s: float = 25.0
    ping_timeout_s: float = 60.0
    shutdown_timeout_s: int = 3

    def __post_init__(self) -> None:
        for limit in dataclasses.fields(self):
            value = getattr(self, limit.name)
            _require(0 < value < float("inf"), limit.name, f"must be above 0 and finite, not {value!r}")
        _require(
            self.ping_timeout_s > self.ping_interval_s,
            "ping_timeout_s",
            f"must be above ping_interval_s ({self.ping_interval_s}), not {self.ping_timeout_s}",
        )

    @property
    def max_body_bytes(self) -> int:
        """Of a publish: room for a message whose every byte is percent-encoded, and for its other fields."""
        return 3 * self.max_message_bytes + 8 * 1024

    @property
    def max_frame_bytes(self) -> int:
        """Of a command: room for a message whose every byte is a JSON escape, and for its other fields."""
        return 6 * self.max_message_bytes + 8 * 1024


@dataclass(frozen=True)
class App:
    """One app; two of them never meet.

    Attributes:
        secrets: any of them is accepted, so that one can be changed without a gap.
        allowed_origins: the origins of pages that may subscribe, such as ``https://www.example.com``;
            ``None`` for any. A WebSocket without an Origin header comes from a program, and is accepted.
            The balancer and long polling need an Origin or a Referer.
        max_publishes_per_s: ``None`` for no limit.
        long_polling: whether its subscribers may poll (section 6 of the protocol). Anyone who learns the URL
            of a poll can read the subscriber's messages.
    """

    api_key: str
    app_id: str
    secrets: tuple[str, ...] = field(repr=False)
    allowed_origins: tuple[str, ...] | None = None
    max_publishes_per_s: float | None = None
    long_polling: bool = True

    def __post_init__(self) -> None:
        for name in ("api_key", "app_id"):
            try:
                object.__setattr__(self, name, check_credential_name(name, getattr(self, name)))
            except ConfigurationError as error:
                raise _SettingError(name, str(error).removeprefix(name).lstrip()) from None
        _require(not isinstance(self.secrets, (str, bytes)), "secrets", "must be a tuple of secrets")
        _require(self.secrets, "secrets", "must hold at least one secret")
        try:
            object.__setattr__(self, "secrets", tuple(check_secret(secret) for secret in self.secrets))
        except ConfigurationError as error:
            raise _SettingError("secrets", f"holds one that cannot be: {error}") from None
        for origin in self.allowed_origins or ():
            _require(
                _ORIGIN.fullmatch(origin),
                "allowed_origins",
                f"takes origins such as 'https://www.example.com', lower-case, not {origin!r}",
            )
        rate = self.max_publishes_per_s
        _require(
            rate is None or 0 < rate < float("inf"),
            "max_publishes_per_s",
            f"must be above 0 and finite, not {rate!r}",
        )

    @property
    def key(self) -> AppKey:
        return AppKey(self.api_key, self.app_id)

    @cached_property
    def signers(self) -> tuple[TokenSigner, ...]:
        """What checks this app's tokens, one for each secret."""
        return tuple(TokenSigner(self.api_key, self.app_id, secret) for secret in self.secrets)

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a page of this origin may subscribe; ``None`` where a client names none."""
        return self.allowed_origins is None or origin is None or origin.lower() in self.allowed_origins


@dataclass(frozen=True)
class Config:
    """A whole server.

    Attributes:
        apps: at least one; no two with the same api_key and app_id.
        host: the address to listen on.
        port: the port to listen on; 0 picks a free one.
        broker: a URL, ``memory://`` for a single process.
        node_timeout_s: after how many seconds without a sign of life of another process its users are down.
        workers: how many processes serve; all but one process need a broker that connects them.
        tls_cert: a PEM file with the certificate and its chain, for https and wss alone; ``None`` for
            http and ws alone.
        tls_key: a PEM file with its private key; ``None`` if that stands in ``tls_cert``, too.
        metrics_port: where Prometheus finds metrics on 127.0.0.1; ``None`` for nowhere. Each of several
            workers has a port of its own, from this one on.
        public_hosts: the values of ``Host`` that are answered, ``host`` or ``host:port``; any if empty.
        join_window_ms: for how long publications of a busy stream are joined into one write, in
            milliseconds; 0 writes each at once. The first of a stream that was idle never waits.
    """

    apps: tuple[App, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    broker: str = field(default="memory://", repr=False)  # it may hold a password
    node_timeout_s: float = 30.0
    workers: int = 1
    tls_cert: str | None = None
    tls_key: str | None = None
    metrics_port: int | None = None
    public_hosts: tuple[str, ...] = ()
    join_window_ms: float = 2.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _require(self.apps, "apps", "must hold at least one app")
        keys = [app.key for app in self.apps]
        for key in keys:
            _require(
                keys.count(key) == 1, "apps", f"holds the app {key.app_id!r} twice with the same api_key"
            )
        _require(self.host, "host", "must not be empty")
        _require(0 <= self.port <= 65535, "port", f"must be 0 to 65535, not {self.port}")
        _require(
            self.metrics_port is None or 1 <= self.metrics_port <= 65535,
            "metrics_port",
            f"must be 1 to 65535, not {self.metrics_port}",
        )
        _require(
            self.metrics_port is None or self.metrics_port + self.workers - 1 <= 65535,
            "metrics_port",
            f"must leave a port for each of {self.workers} workers, from {self.metrics_port} up to 65535",
        )
        _require(self.tls_key is None or self.tls_cert is not None, "tls_key", "needs a tls_cert")
        try:
            broker = parse_url(self.broker)
        except ConfigurationError as error:
            raise _SettingError("broker", str(error).removeprefix("the broker ")) from None
        _require(
            1 <= self.workers <= MAX_WORKERS, "workers", f"must be 1 to {MAX_WORKERS}, not {self.workers}"
        )
        _require(
            self.workers == 1 or broker is not None,
            "workers",
            f"must be 1, not {self.workers}, with the broker 'memory://': that is the memory of one process, "
            "and subscribers of another would miss what is published to it; a 'redis://' connects many",
        )
        _require(
            1 <= self.node_timeout_s < float("inf"),
            "node_timeout_s",
            f"must be at least 1 and finite, not {self.node_timeout_s!r}",
        )
        _require(
            0 <= self.join_window_ms <= 1000,
            "join_window_ms",
            f"must be 0 to 1000, not {self.join_window_ms!r}",
        )
        for host in self.public_hosts:
            _require(
                is_host(host) and host == host.lower(),
                "public_hosts",
                f"takes host or host:port, lower-case, not {host!r}",
            )

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @classmethod
    def from_credentials(cls, credentials: Credentials, **settings: Any) -> Config:
        """A server of one app, which has the key, app id and secret of a ``TAMBUR_URL``."""
        app = App(credentials.api_key, credentials.app_id, (credentials.secret,))
        return cls(apps=(app,), **settings)

    @classmethod
    def from_toml(cls, path: str | Path) -> Config:
        """Read a file of the form that docs/reference/configuration.md describes.

        Raises:
            ConfigurationError: naming the file, the line and the rule.
        """
        path = Path(path)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from None
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path}: {error}") from None
        return _Reader(path, text).config(tables)


class _Reader:
    """Turns parsed tables into dataclasses; knows the text, to say in which line a mistake stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def config(self, tables: dict[str, Any]) -> Config:
        allowed = {"server", "limits", "apps"}
        for name in tables:
            if name not in allowed:
                raise self._mistake((name,), f"unknown table {name!r}; the tables are {_list(allowed)}")
        apps = tables.get("apps", [])
        if not isinstance(apps, list) or not all(isinstance(app, dict) for app in apps):
            raise self._mistake(("apps",), "apps must be an array of tables, each headed [[apps]]")
        settings = {
            "apps": tuple(self._build(App, app, ("apps", i)) for i, app in enumerate(apps)),
            "limits": self._build(Limits, tables.get("limits", {}), ("limits",)),
        }
        config: Config = self._build(Config, tables.get("server", {}), ("server",), settings)
        return config

    def _build(
        self,
        cls: type[Any],
        table: object,
        path: tuple[str | int, ...],
        others: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> Any:
        if not isinstance(table, dict):
            raise self._mistake(path, f"{path[0]} must be a table, headed [{path[0]}]")
        hints = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in others}
        values = dict(others)
        for key, value in table.items():
            if key not in fields:
                raise self._mistake((*path, key), f"unknown setting {key!r}; known here are {_list(fields)}")
            try:
                values[key] = _convert(key, value, hints[key])
            except _SettingError as error:
                raise self._mistake((*path, key), str(error)) from None
        for name, known in fields.items():
            required = known.default is dataclasses.MISSING and known.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise self._mistake(path, f"{name} is missing")
        try:
            return cls(**values)
        except _SettingError as error:
            inner = (error.key,) if error.key in others else (*path, error.key)
            raise self._mistake(inner, str(error)) from None

    def _mistake(self, path: tuple[str | int, ...], rule: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}, line {self._line(path)}: {rule}")

    def _line(self, path: tuple[str | int, ...]) -> int:
        """The line where the statement begins that gives the value at ``path``.

        Of what is not there at all, the line of the table that it should be in, or else the first.
        """
        while path and not self._holds(len(self._lines), path):
            path = path[:-1]
        low, high = 1, max(1, len(self._lines))
        while path and low < high:
            middle = (low + high) // 2
            if self._holds(middle, path):
                high = middle
            else:
                low = middle + 1
        return low

    def _holds(self, count: int, path: tuple[str | int, ...]) -> bool:
        """Whether the first ``count`` lines, and the rest of a value that spans lines, give ``path`` one."""
        for end in range(count, len(self._lines) + 1):
            try:
                value: Any = tomllib.loads("\n".join(self._lines[:end]) + "\n")
            except tomllib.TOMLDecodeError:
                continue
            try:
                for step in path:
                    value = value[step]
            except LookupError:
                return False
            return True
        return False


def _list(names: typing.Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _convert(key: str, value: object, hint: Any) -> Any:
    """Check a TOML value against the annotation of its field."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    # TOML has no null: a setting that may be None is None by being absent.
    (wanted,) = (option for option in options if option is not type(None))
    if wanted is float and type(value) in (int, float):
        return float(typing.cast(float, value))
    if wanted in (int, str, bool) and type(value) is wanted:
        return value
    if typing.get_origin(wanted) is tuple and isinstance(value, list) and all(type(v) is str for v in value):
        return tuple(value)
    names = {float: "a number", int: "an integer", str: "a string", bool: "true or false"}
    found = f", not {value!r}" if key != "secrets" else ""
    raise _SettingError(key, f"must be {names.get(wanted, 'an array of strings')}{found}")
