"""The settings of a server, and their rules. docs/reference/configuration.md describes them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..credentials import Credentials, check_secret, is_host
from ..errors import ConfigurationError
from ..loopback import is_loopback
from ..protocol.names import check_credential_name
from ..protocol.positions import Positions
from ..protocol.tokens import TokenSigner
from .broker import AppKey
from .broker.redis.urls import parse_url
from .console.password import parse_hash
from .settings import SettingError, require
from .webhooks.settings import Webhook

MAX_WORKERS = 1000

MAX_DURATION_S = 100 * 365 * 24 * 3600
"""The longest duration that can be set, in seconds. Redis lets nothing expire after much longer."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")


def _require_bounded(key: str, duration_s: float) -> None:
    rule = f"must be at most {MAX_DURATION_S}, a hundred years, not {duration_s!r}"
    require(duration_s <= MAX_DURATION_S, key, rule)


@dataclass(frozen=True)
class Limits:
    """Limits on the cost of one client to the others. The units are in the names; sizes are of encoded bytes.

    Attributes:
        max_connections: of one process, subscribers and publishers together.
        max_message_bytes: of a published or direct message, as UTF-8.
        max_batch_bytes: of the body of a batch.
        max_header_bytes: of a request line and its headers together.
        request_timeout_s: time from the first byte of a request to its last. Also limits TLS
            handshakes and unread responses.
        max_held_bytes: memory that all connections of one process hold together: subscriptions, and
            buffers of more than 16 KiB. Beyond it, the connections that hold most are closed.
        max_unsent_bytes: bytes that may wait for a slow subscriber; with more, it is dropped.
        max_streams_per_subscriber: how many streams a connection may be subscribed to at once.
        max_commands_per_s: how many commands of one connection are answered; more wait for their turn. Pings
            and other frames without a complete command count, too.
        max_direct_bytes_per_s: how much one connection may send in direct messages; further ones are refused.
        max_long_polling_subscribers: how many subscribers may poll at the same time.
        max_claims: how many publishes of each app are remembered, to deliver each only once.
        heartbeat_s: how long an extended connection may be silent before it is sent a heartbeat, and how long
            a poll with POST waits.
        session_ttl_s: how long a session key is valid after it was issued, unless the session ends before.
        session_max_s: how long after its beginning a session can be resumed.
        presence_linger_s: how long the users of a lost extended connection stay present; 0 for not at all.
        max_lingering_users: how many of them one process keeps present at once, counted for each stream and
            connection; the next one leaves immediately.
        max_lost_sessions: how many lost sessions one process remembers for :meth:`tambur.Tambur.disconnect`;
            and with ``memory://``, of how many resumed sessions it knows which keys are too old.
        max_revocations: how many disconnected users and subscriber IDs of an app are remembered, to refuse
            their sessions and tokens; another disconnect is refused.
        position_ttl_s: how long the position of a quiet stream is remembered after its last message
            and after its last subscriber left.
        history_messages: how many messages of a stream are kept; 0 keeps none.
        history_ttl_s: how long a message is kept.
        max_history_bytes: size of the kept messages of an app, in one process or one Redis.
        max_webhook_events: how many events wait for one endpoint of webhooks; the oldest are dropped.
        max_replay_bytes: size of the messages that a client receives when it asks for the newest ones.
        ping_interval_s: how often a connection is pinged, and how long a poll with GET waits.
        ping_timeout_s: how long a connection may be inactive or not poll before it is dropped.
        shutdown_timeout_s: how long a shutdown waits for connections to close.
    """

    max_connections: int = 16 * 1024
    max_message_bytes: int = 64 * 1024
    max_batch_bytes: int = 1024 * 1024
    max_header_bytes: int = 16 * 1024
    request_timeout_s: float = 10.0
    max_held_bytes: int = 512 * 1024 * 1024
    max_unsent_bytes: int = 1024 * 1024
    max_streams_per_subscriber: int = 1000
    max_commands_per_s: float = 1000.0
    max_direct_bytes_per_s: int = 256 * 1024
    max_long_polling_subscribers: int = 10_000
    max_claims: int = 1_000_000
    heartbeat_s: float = 15.0
    session_ttl_s: float = 900.0
    session_max_s: float = 86_400.0
    presence_linger_s: float = 5.0
    max_lingering_users: int = 100_000
    max_lost_sessions: int = 100_000
    max_revocations: int = 100_000
    position_ttl_s: float = 3600.0
    history_messages: int = 1000
    history_ttl_s: float = 120.0
    max_history_bytes: int = 64 * 1024 * 1024
    max_webhook_events: int = 100_000
    max_replay_bytes: int = 1024 * 1024
    ping_interval_s: float = 25.0
    ping_timeout_s: float = 60.0
    shutdown_timeout_s: float = 3.0

    def __post_init__(self) -> None:
        for limit in dataclasses.fields(self):
            value = getattr(self, limit.name)
            if limit.name == "history_messages":
                require(value >= 0, limit.name, f"must be at least 0, not {value!r}")
            elif limit.name == "presence_linger_s":
                require(
                    0 <= value < float("inf"), limit.name, f"must be at least 0 and finite, not {value!r}"
                )
            else:
                require(0 < value < float("inf"), limit.name, f"must be above 0 and finite, not {value!r}")
            if limit.name.endswith("_s") and not limit.name.endswith("_per_s"):
                _require_bounded(limit.name, value)
        require(
            self.ping_timeout_s > self.ping_interval_s,
            "ping_timeout_s",
            f"must be above ping_interval_s ({self.ping_interval_s}), not {self.ping_timeout_s}",
        )

    @property
    def max_body_bytes(self) -> int:
        """The limit for a publish: a message with every byte percent-encoded, and the other fields."""
        return 3 * self.max_message_bytes + 8 * 1024

    @property
    def max_poll_bytes(self) -> int:
        """The limit for a poll with POST: a message as in a publish, and other commands."""
        return self.max_body_bytes + 56 * 1024

    @property
    def max_frame_bytes(self) -> int:
        """The limit for a command: a message with every byte a JSON escape, and the other fields."""
        return 6 * self.max_message_bytes + 8 * 1024


@dataclass(frozen=True)
class KeptStreams:
    """The history of some streams of an app, which overrides the limits: one ``[[apps.history]]``.

    Attributes:
        streams: a pattern for their names, in which ``*`` stands for any characters.
        messages: how many messages of a stream are kept; 0 keeps none.
        ttl_s: how long a message is kept, in seconds.
        max_bytes: size of the kept messages of all these streams together.
    """

    streams: str
    messages: int = Limits.history_messages
    ttl_s: float = Limits.history_ttl_s
    max_bytes: int = Limits.max_history_bytes

    def __post_init__(self) -> None:
        require(self.streams, "streams", "must not be empty")
        require(self.messages >= 0, "messages", f"must be at least 0, not {self.messages!r}")
        for name in ("ttl_s", "max_bytes"):
            value = getattr(self, name)
            require(0 < value < float("inf"), name, f"must be above 0 and finite, not {value!r}")
        _require_bounded("ttl_s", self.ttl_s)

    def matches(self, stream: str) -> bool:
        """Whether a stream's name fits the pattern."""
        # A regular expression with many stars could take very long for some names.
        first, *others = self.streams.split("*")
        if not others:
            return stream == first
        if not stream.startswith(first):
            return False
        position = len(first)
        *middle, last = others
        for part in middle:
            found = stream.find(part, position)
            if found < 0:
                return False
            position = found + len(part)
        return len(stream) - position >= len(last) and stream.endswith(last)


@dataclass(frozen=True)
class App:
    """One app, isolated from all others.

    Attributes:
        secrets: any of them is accepted, so that a secret can be replaced without downtime.
        allowed_origins: the origins of pages that may subscribe, such as ``https://www.example.com``;
            ``None`` for any. A WebSocket without an Origin header comes from a program, and is accepted.
            The balancer and long polling need an Origin or a Referer.
        max_publishes_per_s: ``None`` for no limit.
        long_polling: whether its subscribers may poll (section 6 of the protocol). Anyone who learns the URL
            of a poll with GET can read the subscriber's messages.
        history: what is kept of some streams; the first entry that matches a stream counts.
        webhooks: the endpoints that receive events.
    """

    api_key: str
    app_id: str
    secrets: tuple[str, ...] = field(repr=False)
    allowed_origins: tuple[str, ...] | None = None
    max_publishes_per_s: float | None = None
    long_polling: bool = True
    history: tuple[KeptStreams, ...] = ()
    webhooks: tuple[Webhook, ...] = ()

    def __post_init__(self) -> None:
        for name in ("api_key", "app_id"):
            try:
                object.__setattr__(self, name, check_credential_name(name, getattr(self, name)))
            except ConfigurationError as error:
                raise SettingError(name, str(error).removeprefix(name).lstrip()) from None
        require(not isinstance(self.secrets, (str, bytes)), "secrets", "must be a tuple of secrets")
        require(self.secrets, "secrets", "must hold at least one secret")
        try:
            object.__setattr__(self, "secrets", tuple(check_secret(secret) for secret in self.secrets))
        except ConfigurationError as error:
            raise SettingError("secrets", f"holds one that cannot be: {error}") from None
        for origin in self.allowed_origins or ():
            require(
                _ORIGIN.fullmatch(origin),
                "allowed_origins",
                f"takes origins such as 'https://www.example.com', lower-case, not {origin!r}",
            )
        for url, count in Counter(webhook.url for webhook in self.webhooks).items():
            require(count == 1, "webhooks", f"names the url {url!r} twice")
        rate = self.max_publishes_per_s
        require(
            rate is None or 0 < rate < float("inf"),
            "max_publishes_per_s",
            f"must be above 0 and finite, not {rate!r}",
        )

    @cached_property
    def key(self) -> AppKey:
        return AppKey(self.api_key, self.app_id)

    @cached_property
    def signers(self) -> tuple[TokenSigner, ...]:
        """The signers that check this app's tokens, one for each secret."""
        return tuple(TokenSigner(self.api_key, self.app_id, secret) for secret in self.secrets)

    @cached_property
    def positions(self) -> Positions:
        """Creates and parses the positions of this app."""
        return Positions(self.api_key, self.app_id, self.secrets)

    def opens_history(self, stream: str) -> bool:
        """Whether clients may ask for the newest messages of a stream."""
        return any(kept.matches(stream) for kept in self.history)

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a page of this origin may subscribe; ``None`` if the client sends none."""
        return self.allowed_origins is None or origin is None or origin.lower() in self.allowed_origins


@dataclass(frozen=True)
class Config:
    """The configuration of a server.

    Attributes:
        apps: one or more apps, each with its own pair of api_key and app_id.
        host: the address to listen on.
        port: the port to listen on; 0 picks a free one.
        broker: a URL, ``memory://`` for a single process.
        node_timeout_s: seconds after which the users of a silent process are reported as down.
        workers: number of processes; more than 1 needs ``redis://…`` as the broker.
        tls_cert: a PEM file with the certificate and its chain, for https and wss only; ``None`` for
            http and ws only.
        tls_key: a PEM file with its private key; ``None`` if ``tls_cert`` contains the key.
        console_port: the port of the console and the metrics; ``None`` for neither, 0 for a free one. Each of
            several workers has its own port, from this one on.
        console_host: the address that the console listens on. On others than loopback it needs a password,
            and TLS or ``console_insecure``.
        console_password: the hash of its password, made by ``tambur hash-password``; ``None`` for none.
        console_insecure: whether the password may be sent without TLS.
        public_hosts: the values of ``Host`` that are accepted, ``host`` or ``host:port``; any if empty.
        coalesce_window_ms: how long publications of a busy stream are coalesced into one write, in
            milliseconds. With 0, each is a write of its own, to all subscribers in one turn. The first one of
            an idle stream never waits.
    """

    apps: tuple[App, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    broker: str = field(default="memory://", repr=False)  # it may hold a password
    node_timeout_s: float = 30.0
    workers: int = 1
    tls_cert: str | None = None
    tls_key: str | None = None
    console_port: int | None = None
    console_host: str = "127.0.0.1"
    console_password: str | None = field(default=None, repr=False)
    console_insecure: bool = False
    public_hosts: tuple[str, ...] = ()
    coalesce_window_ms: float = 2.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require(self.apps, "apps", "must hold at least one app")
        for key, count in Counter(app.key for app in self.apps).items():
            require(count == 1, "apps", f"holds the app {key.app_id!r} twice with the same api_key")
        require(self.host, "host", "must not be empty")
        require(0 <= self.port <= 65535, "port", f"must be 0 to 65535, not {self.port}")
        self._check_console()
        require(self.tls_key is None or self.tls_cert is not None, "tls_key", "needs a tls_cert")
        try:
            broker = parse_url(self.broker)
        except ConfigurationError as error:
            raise SettingError("broker", str(error).removeprefix("the broker ")) from None
        require(
            1 <= self.workers <= MAX_WORKERS, "workers", f"must be 1 to {MAX_WORKERS}, not {self.workers}"
        )
        require(
            self.workers == 1 or broker is not None,
            "workers",
            f"must be 1, not {self.workers}, with the broker 'memory://': that is the memory of one process, "
            "and subscribers of another would miss what is published to it; a 'redis://' connects many",
        )
        require(
            1 <= self.node_timeout_s < float("inf"),
            "node_timeout_s",
            f"must be at least 1 and finite, not {self.node_timeout_s!r}",
        )
        _require_bounded("node_timeout_s", self.node_timeout_s)
        require(
            0 <= self.coalesce_window_ms <= 1000,
            "coalesce_window_ms",
            f"must be 0 to 1000, not {self.coalesce_window_ms!r}",
        )
        for host in self.public_hosts:
            require(
                is_host(host) and host == host.lower(),
                "public_hosts",
                f"takes host or host:port, lower-case, not {host!r}",
            )

    def _check_console(self) -> None:
        port, host = self.console_port, self.console_host
        require(host, "console_host", "must not be empty")
        if self.console_password is not None:
            try:
                parse_hash(self.console_password)
            except ValueError as error:
                raise SettingError("console_password", str(error)) from None
        if port is None:
            return
        require(0 <= port <= 65535, "console_port", f"must be 0 to 65535, not {port}")
        require(
            port + self.workers - 1 <= 65535,
            "console_port",
            f"must leave a port for each of {self.workers} workers, from {port} up to 65535",
        )
        if not is_loopback(host):
            reached = f"on {host}, which others can reach"
            require(
                self.console_password is not None,
                "console_host",
                f"needs a console_password {reached}; 'tambur hash-password' makes one",
            )
            require(
                self.tls_cert is not None or self.console_insecure,
                "console_host",
                f"needs a tls_cert {reached}; or, to send the password unencrypted, console_insecure = true "
                "(--console-insecure)",
            )

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach the server."""
        return is_loopback(self.host)

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
        from .config_file import read  # noqa: PLC0415 - it needs these classes

        return read(Path(path))
