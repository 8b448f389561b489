"""What carries publications between the nodes of a server, and what they must agree on.

A broker knows published messages, not sessions: it hands each publication to the callback of every node
that subscribed to its stream, and keeps what must hold for the whole server: claimed nonces, rates and
who is present.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from ...protocol.names import Kind
from .redis.urls import parse_url

CLAIM_WINDOW_S = 300
"""How far a request's timestamp may be from the server's clock, in seconds (section 2 of the protocol).

A claim is kept until its timestamp is this long past: from then on the timestamp alone refuses a replay.
"""


class AppKey(NamedTuple):
    """What everything is scoped by: two apps never meet."""

    api_key: str
    app_id: str


class Publication(NamedTuple):
    """One event on its way to subscribers.

    Attributes:
        app: whose it is.
        kind: who receives it.
        name: the stream, or the subscriber id of a private message.
        event: the JSON text that subscribers get, encoded once for all of them.
        user_id: of a direct message, the only receiver; of a presence event, the user that it is
            about and who does not get it; otherwise ``None``.
        version: of a presence event, its place among the presence events of the stream.
        place: of one that this node had missed and makes up for, its place among all publications: who
            subscribed later (see :meth:`Broker.place`) does not get it. Otherwise 0.
    """

    app: AppKey
    kind: Kind
    name: str
    event: bytes
    user_id: str | None = None
    version: int = 0
    place: int = 0


class Claim(NamedTuple):
    """What makes a publish one that happens once (section 2 of the protocol).

    Attributes:
        app: whose nonce it is.
        timestamp: the request's own, in seconds since 1970.
        nonce: a digest of the nonce.
        signature: a digest of the signature; the same nonce with another one is refused.
    """

    app: AppKey
    timestamp: int
    nonce: bytes
    signature: bytes


class Outcome(enum.Enum):
    """What became of a publish."""

    DELIVERED = enum.auto()
    REPLAYED = enum.auto()
    NONCE_REUSED = enum.auto()
    RATE_LIMITED = enum.auto()


class Published(NamedTuple):
    """``retry_after_s`` is in seconds, and 0 for all outcomes but RATE_LIMITED."""

    outcome: Outcome
    retry_after_s: float = 0.0


class Presence(NamedTuple):
    """Who was present on a stream after its event ``version``."""

    user_ids: tuple[str, ...]
    version: int


class BrokerUnavailableError(Exception):
    """The broker cannot do it now, and has done nothing that is known of; the text says why.

    It is safe to try the same again: what did happen after all does not happen twice.

    Attributes:
        retry_after_s: seconds after which trying again makes sense.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


Deliver = Callable[[Publication], None]
Answer = Callable[[bytes], Awaitable[bytes]]
Missed = Callable[[], None]


class Broker(Protocol):
    """The interface.

    Every coroutine but ``start`` and ``close`` may raise :class:`BrokerUnavailableError`. What ends something
    cannot fail: where the broker is away, it takes effect once that is back.
    """

    @property
    def trouble(self) -> str | None:
        """Why nothing can be published at the moment; ``None`` if all is well."""

    async def start(self, deliver: Deliver, answer: Answer, missed: Missed = lambda: None) -> None:
        """Connect; where the broker is away, it is looked for until it is there.

        Parameters:
            deliver: called for whatever is published to subscribed streams.
            answer: called with what other nodes :meth:`ask` this one; cancelled when they no longer wait.
            missed: called if something that was published to subscribed streams cannot be delivered any more.
        """

    async def close(self) -> None:
        """Let go of everything. Nothing is delivered afterwards."""

    def new_subscriber_id(self) -> str:
        """Make the id of a new subscriber; what is published to it privately is delivered here."""

    async def subscribe(self, app: AppKey, stream: str) -> None:
        """Have what is published to a stream delivered, from the moment this returns."""

    async def place(self) -> int:
        """How far publications have come: those from now on have places above that."""

    def unsubscribe(self, app: AppKey, stream: str) -> None:
        """Have a stream's publications delivered no more."""

    async def publish(
        self, publication: Publication, claim: Claim, *, now: int, max_publishes_per_s: float | None
    ) -> Published:
        """Claim a nonce and deliver, in one step: either both happen or none.

        Parameters:
            now: seconds since 1970.
            max_publishes_per_s: the app's rate limit, ``None`` for none.
        """

    async def claimed(self, claim: Claim) -> Outcome | None:
        """Whether a nonce is taken: REPLAYED, NONCE_REUSED, or ``None`` if it is free."""

    async def send(self, publication: Publication) -> None:
        """Deliver a direct message."""

    async def ask(self, subscriber_id: str, question: bytes, *, timeout_s: float) -> bytes | None:
        """Have the node that made a subscriber id answer; cancelling this withdraws the question.

        Returns:
            ``None`` if no other node made it.
        """

    async def join(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> Presence:
        """Note that one connection of a user is present; the user's first is told to the others."""

    def leave(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> None:
        """Note that one connection of a user is gone; the user's last is told to the others."""


def from_url(url: str, *, max_claims: int, node_timeout_s: float) -> Broker:
    """Make the broker that a URL names.

    Parameters:
        url: ``memory://``, for one process, or that of a Redis, for many.
        max_claims: how many claimed nonces of each app are kept at most.
        node_timeout_s: after how many seconds without a sign of life the users of another process are down.

    Raises:
        ConfigurationError: if no broker has such a URL.
        ImportError: if what the broker needs is not installed.
    """
    redis_url = parse_url(url)
    # One broker is used, only that one is loaded.
    if redis_url is None:
        from .memory import MemoryBroker  # noqa: PLC0415

        return MemoryBroker(max_claims=max_claims)
    from .redis.broker import RedisBroker  # noqa: PLC0415

    return RedisBroker(redis_url, max_claims=max_claims, node_timeout_s=node_timeout_s)
