"""The shared state of a server's nodes: publications, presence and calls from node to node.

A broker knows published messages, not subscribers: it delivers each publication to every node
that subscribed to its stream. It also keeps what must hold for the whole server: claimed nonces and rates.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ...protocol.names import Kind

if TYPE_CHECKING:
    from .recovery import Recovery
    from .webhooks import WebhookQueues

CLAIM_WINDOW_S = 300
"""How far a request's timestamp may be from the server's clock, in seconds (section 2 of the protocol).

A claim is kept until its timestamp is this long past. From then on the timestamp alone refuses a replay.
"""


class AppKey(NamedTuple):
    """The scope of streams, users, subscribers and nonces: two apps never meet."""

    api_key: str
    app_id: str


class Publication(NamedTuple):
    """One event on its way to subscribers.

    Attributes:
        app: the app.
        kind: who receives it.
        name: the stream, or the subscriber ID of a private message.
        event: the JSON text that subscribers receive, encoded once for all of them.
        user_id: of a direct message, the only receiver; of a presence event, the user that it is
            about and who does not receive it; otherwise ``None``.
        version: of a presence event, its number among the presence events of the stream.
        place: its number among all publications, which grows. 0 for a presence event, and before the broker
            has given it one.
        excluded: the subscriber ID that does not receive it; ``None`` for none.
        extended_event: the event for extended connections instead of ``event``, once the hub has made it.
    """

    app: AppKey
    kind: Kind
    name: str
    event: bytes
    user_id: str | None = None
    version: int = 0
    place: int = 0
    excluded: str | None = None
    extended_event: bytes = b""


class Claim(NamedTuple):
    """The use of a nonce, which makes a publish idempotent (section 2 of the protocol).

    Attributes:
        app: the app.
        timestamp: the request's own, in seconds since 1970.
        nonce: a digest of the nonce.
        signature: a digest of the signature; the same nonce with another one is refused.
    """

    app: AppKey
    timestamp: int
    nonce: bytes
    signature: bytes


class Outcome(enum.Enum):
    """The result of a publish."""

    DELIVERED = enum.auto()
    REPLAYED = enum.auto()
    NONCE_REUSED = enum.auto()
    RATE_LIMITED = enum.auto()


class Published(NamedTuple):
    """The result of a publish.

    Attributes:
        outcome: what became of it.
        retry_after_s: seconds until another publish is admitted; 0 for all outcomes but RATE_LIMITED.
        nodes: how many nodes have subscribers of the stream. For a private message it is 1 if the node that
            made the subscriber ID runs, whether the subscriber is still connected or not. 0 if the publish
            was refused.
        place: the place of the publication; 0 if none was delivered, and for a batch.
    """

    outcome: Outcome
    retry_after_s: float = 0.0
    nodes: int = 0
    place: int = 0


class Entry(NamedTuple):
    """The presence of one connection."""

    app: AppKey
    stream: str
    user_id: str
    subscriber_id: str


class PresentUsers(NamedTuple):
    """The users present on a stream after its presence event ``version``."""

    user_ids: tuple[str, ...]
    version: int


class BrokerUnavailableError(Exception):
    """The broker cannot do it now; the text says why.

    Trying the same again is safe: if it took effect after all, it does not take effect twice.

    Attributes:
        retry_after_s: seconds after which a retry makes sense.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def private_log(subscriber_id: str) -> str:
    """The name of the log of private messages to a subscriber."""
    return f"private:{subscriber_id}"


def direct_log(stream: str, user_id: str) -> str:
    """The name of the log of direct messages to a user of a stream. No name holds a line break."""
    return f"{stream}\n{user_id}"


def is_direct_log(log: str) -> bool:
    """Whether a log is that of a user."""
    return "\n" in log


def is_private_log(log: str) -> bool:
    """Whether a log is that of a subscriber; no stream's name begins so."""
    return log.startswith("private:")


Deliver = Callable[[Publication], None]
Answer = Callable[[bytes], Awaitable[bytes]]
Logs = Iterable[tuple[AppKey, str]]
Missed = Callable[[Logs | None], None]
Moved = Callable[[AppKey, str], None]
Times = dict[str, int]
Revoked = Callable[[AppKey, Times, Times], Awaitable[tuple[Times, Times]]]


async def ignore_revoked(*_: object) -> tuple[Times, Times]:
    return {}, {}


class Broker(Protocol):
    """Carries publications between nodes. Every coroutine may raise :class:`BrokerUnavailableError`."""

    async def subscribe(self, app: AppKey, stream: str) -> None:
        """Deliver the messages of a stream, from the return of this call on."""

    def unsubscribe(self, app: AppKey, stream: str) -> None:
        """Stop delivering the messages of a stream."""

    async def sync(self) -> None:
        """Return once everything that was published before has been delivered to this node."""

    async def publish(
        self, publication: Publication, claim: Claim, *, now: int, max_publishes_per_s: float | None
    ) -> Published:
        """Claim a nonce and deliver, in one step: both happen or neither.

        Parameters:
            now: seconds since 1970.
            max_publishes_per_s: the app's rate limit; ``None`` for no limit.
        """

    async def admit(self, claim: Claim, *, now: int, max_publishes_per_s: float | None) -> Published:
        """Claim a nonce and count one publish, without a message: for requests that only ask.

        The parameters are those of :meth:`publish`. DELIVERED says that the request is admitted.
        """

    async def publish_batch(
        self,
        publications: Sequence[Publication],
        claim: Claim,
        *,
        now: int,
        max_publishes_per_s: float | None,
    ) -> Published:
        """Claim a nonce and deliver publications in their order, some in each step.

        The claim remembers how far it came. If this fails halfway, the same call with the same claim delivers
        the rest.

        Parameters:
            max_publishes_per_s: the app's rate limit, which counts each publication. If the app may publish
                at least one, all are admitted.

        Returns:
            DELIVERED if any publication was delivered now. ``nodes`` is 0.
        """

    async def claimed(self, claim: Claim) -> Outcome | None:
        """Look a nonce up: REPLAYED, NONCE_REUSED, or ``None`` if it is free."""

    async def send(self, publication: Publication) -> None:
        """Deliver a direct message."""


class Presence(Protocol):
    """Keeps the present users of the streams. Events are delivered like publications."""

    async def join(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> PresentUsers:
        """Register one connection of a user. The user's first connection is announced to the others.

        Raises:
            BrokerUnavailableError: the connection may be registered; a leave undoes it.
        """

    def leave(
        self, app: AppKey, stream: str, user_id: str, subscriber_id: str, *, linger_s: float = 0.0
    ) -> None:
        """Remove one connection of a user. The user's last connection is announced to the others.

        Parameters:
            linger_s: seconds after which this takes effect, unless a join of the user on this node takes the
                place of the connection before.

        This cannot fail: without a broker, it takes effect when the broker is back.
        """

    def end_lingering(self, app: AppKey, connection_ids: Collection[str]) -> None:
        """Have the leaves of some connections take effect now, if they do later."""

    async def users(self, app: AppKey, stream: str) -> Collection[str]:
        """The users present on a stream, on all nodes.

        Raises:
            BrokerUnavailableError: they are not known.
        """

    async def count_users(self, app: AppKey, streams: Sequence[str]) -> Sequence[int]:
        """How many users are present on each of some streams, on all nodes.

        Raises:
            BrokerUnavailableError: they are not known.
        """


class NodeCalls(Protocol):
    """Calls from one node to another."""

    async def ask(self, subscriber_id: str, question: bytes, *, timeout_s: float) -> bytes | None:
        """Have the node that made a subscriber ID answer. Cancelling this withdraws the question.

        Parameters:
            timeout_s: seconds to wait for the answer.

        Returns:
            ``None`` if no other node made the ID.

        Raises:
            BrokerUnavailableError: no answer came.
        """

    async def ask_each(
        self, question: bytes, *, timeout_s: float
    ) -> Mapping[str, bytes | BrokerUnavailableError]:
        """Have all other nodes answer.

        Parameters:
            timeout_s: seconds to wait for the answers.

        Returns:
            For each node, by its ID, what it answered, or why there is no answer.

        Raises:
            BrokerUnavailableError: no node could be asked.
        """


class RevocationStore(Protocol):
    """Remembers disconnected subscribers and users for all nodes."""

    def now_ms(self) -> int:
        """The time in milliseconds since 1970, by a clock that all nodes share. It never goes back."""

    async def revoke(self, app: AppKey, subscriber_ids: Collection[str], user_id: str | None) -> int:
        """Remember that sessions were ended.

        Parameters:
            subscriber_ids: those of the sessions.
            user_id: a user whose sessions so far may not enable modes; ``None`` for no user.

        Returns:
            When, by the same clock.

        Raises:
            BrokerUnavailableError: it may be remembered or not.
        """


class Backend(Protocol):
    """Broker, presence and node calls of one node, started and closed together."""

    @property
    def broker(self) -> Broker: ...

    @property
    def presence(self) -> Presence: ...

    @property
    def calls(self) -> NodeCalls: ...

    @property
    def webhooks(self) -> WebhookQueues: ...

    @property
    def recovery(self) -> Recovery | None:
        """The memory for clients that lost a connection; ``None`` without any."""

    @property
    def revocations(self) -> RevocationStore: ...

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be published now; ``None`` if publishing works."""

    def new_subscriber_id(self) -> str:
        """Make the ID of a new subscriber. Private messages to it are delivered to this node."""

    async def start(
        self,
        deliver: Deliver,
        answer: Answer,
        missed: Missed = lambda _: None,
        moved: Moved = lambda _, __: None,
        read_logs: Callable[[], Logs] = tuple,
        *,
        revoked: Revoked = ignore_revoked,
    ) -> None:
        """Connect. If that fails, return and keep trying.

        Parameters:
            deliver: called with each publication of a subscribed stream.
            answer: called with the questions of other nodes; cancelled when they no longer wait.
            missed: called with the logs of which publications may have been lost; with ``None`` for all logs.
            moved: called with the ID of a session that another node continues.
            read_logs: returns the logs that connections of this node read, beside those of the subscribed
                streams: of private and of direct messages.
            revoked: called before the node is ready, with what is remembered of disconnects: the app, its
                subscriber IDs and its users, with their times in milliseconds since 1970. Returns those that
                only this node remembers.
        """

    async def close(self) -> None:
        """Disconnect. Nothing is delivered afterwards."""
