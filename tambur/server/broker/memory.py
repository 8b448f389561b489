"""The backend of a single process. It forgets everything at a restart, claimed nonces included."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from ...protocol.messages import encode_presence
from ...protocol.names import Kind
from ..config import App, Limits
from . import (
    CLAIM_WINDOW_S,
    Answer,
    AppKey,
    BrokerUnavailableError,
    Claim,
    Deliver,
    Entry,
    Logs,
    Missed,
    Moved,
    Outcome,
    PresentUsers,
    Publication,
    Published,
    Revoked,
    ignore_revoked,
)
from .ids import new_node, new_subscriber_id, node_of
from .lingering import Lingering
from .memory_recovery import MemoryRecovery
from .memory_webhooks import MemoryWebhooks

BATCH_STEP = 50
BATCH_TURN_S = 0.001
"""How many publications of a batch are delivered in one turn of the event loop, and for how long at most.

Without coalescing, each of them is written to all subscribers immediately, which may take milliseconds.
"""


class _Rate:
    """A token bucket that holds one second's worth of publishes, and at least one."""

    __slots__ = ("_filled_at", "_tokens")

    def __init__(self, now: float, per_s: float) -> None:
        self._filled_at = now
        self._tokens = max(1.0, per_s)

    def wait_s(self, now: float, per_s: float) -> float:
        """Seconds until there is a token; 0.0 if there is one now."""
        self._tokens = min(max(1.0, per_s), self._tokens + (now - self._filled_at) * per_s)
        self._filled_at = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / per_s

    def take(self, count: int) -> None:
        """Take so many tokens. They may become fewer than none."""
        self._tokens -= count


class _Present:
    """The users on a stream with their connections, and the number of presence events."""

    __slots__ = ("users", "version")

    def __init__(self) -> None:
        self.users: dict[str, set[str]] = {}
        self.version = 0


class MemoryBroker:
    """Everything happens in one event loop, so code without an ``await`` is atomic.

    Parameters:
        max_claims: claimed nonces of each app that are kept; a publish past that is refused.
        recovery: numbers and keeps messages; ``None`` for one that follows the default limits.
        monotonic: the clock of the rate limits, in seconds.
    """

    def __init__(
        self,
        *,
        max_claims: int,
        recovery: MemoryRecovery | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recovery = recovery or MemoryRecovery((), Limits())
        self._max_claims = max_claims
        self._monotonic = monotonic
        self.node = new_node()
        self.deliver: Deliver | None = None
        self._subscribed: set[tuple[AppKey, str]] = set()
        # By timestamp, so that a second's worth of claims is dropped at once when it has passed.
        self._claims: dict[int, dict[AppKey, dict[bytes, bytes]]] = {}
        self._claims_count: Counter[AppKey] = Counter()
        self._rates: dict[AppKey, _Rate] = {}
        # Of each batch that is not finished, how many publications have been delivered.
        self._progress: dict[Claim, int] = {}

    async def subscribe(self, app: AppKey, stream: str) -> None:
        if (app, stream) not in self._subscribed:
            self._subscribed.add((app, stream))
            self._recovery.need(app, stream)

    async def sync(self) -> None:
        pass  # everything is delivered at once

    def unsubscribe(self, app: AppKey, stream: str) -> None:
        if (app, stream) in self._subscribed:
            self._subscribed.remove((app, stream))
            self._recovery.release(app, stream)

    async def publish(
        self, publication: Publication, claim: Claim, *, now: int, max_publishes_per_s: float | None
    ) -> Published:
        refused = self._admit(claim, now, max_publishes_per_s, 1)
        if refused is None:
            kept = self._recovery.keep(publication)
            self.hand_on(kept)
            return Published(Outcome.DELIVERED, nodes=self._nodes(publication), place=kept.place)
        if refused.outcome is Outcome.REPLAYED:
            return refused._replace(nodes=self._nodes(publication))
        return refused

    async def admit(self, claim: Claim, *, now: int, max_publishes_per_s: float | None) -> Published:
        return self._admit(claim, now, max_publishes_per_s, 1) or Published(Outcome.DELIVERED)

    async def publish_batch(
        self,
        publications: Sequence[Publication],
        claim: Claim,
        *,
        now: int,
        max_publishes_per_s: float | None,
    ) -> Published:
        refused = self._admit(claim, now, max_publishes_per_s, len(publications))
        if refused is None:
            self._progress[claim] = 0
        elif refused.outcome is not Outcome.REPLAYED:
            return refused
        outcome = Outcome.REPLAYED
        # The same request may come again meanwhile: then both deliver, each the next step.
        while (start := self._progress.get(claim)) is not None:
            self._check_open()
            until = time.perf_counter() + BATCH_TURN_S
            for done, publication in enumerate(publications[start : start + BATCH_STEP], start + 1):
                self._progress[claim] = done
                self.hand_on(self._recovery.keep(publication))
                if time.perf_counter() > until:
                    break
            if self._progress[claim] == len(publications):
                del self._progress[claim]
            outcome = Outcome.DELIVERED
            await asyncio.sleep(0)
        return Published(outcome)

    def _check_open(self) -> None:
        if self.deliver is None:
            raise BrokerUnavailableError("the server is shutting down", retry_after_s=1)

    def _admit(
        self, claim: Claim, now: int, max_publishes_per_s: float | None, count: int
    ) -> Published | None:
        """Claim a nonce, and count so many publishes; ``None`` if both are done."""
        self._check_open()
        if (taken := self._taken(claim)) is not None:
            return Published(taken)
        rate = None
        if max_publishes_per_s is not None:
            monotonic_now = self._monotonic()
            rate = self._rates.setdefault(claim.app, _Rate(monotonic_now, max_publishes_per_s))
            if wait_s := rate.wait_s(monotonic_now, max_publishes_per_s):
                return Published(Outcome.RATE_LIMITED, wait_s)
        self._claim(claim, now)
        if rate is not None:
            rate.take(count)
        return None

    async def claimed(self, claim: Claim) -> Outcome | None:
        return self._taken(claim)

    def _taken(self, claim: Claim) -> Outcome | None:
        signature = self._claims.get(claim.timestamp, {}).get(claim.app, {}).get(claim.nonce)
        if signature is None:
            return None
        return Outcome.REPLAYED if signature == claim.signature else Outcome.NONCE_REUSED

    def _claim(self, claim: Claim, now: int) -> None:
        app, timestamp, nonce, signature = claim
        if timestamp not in self._claims or self._claims_count[app] >= self._max_claims:
            self._forget_claims(before=now - CLAIM_WINDOW_S)
        if self._claims_count[app] >= self._max_claims:
            oldest = min(second for second, apps in self._claims.items() if app in apps)
            raise BrokerUnavailableError(
                f"{self._max_claims} publishes are remembered, the most that max_claims allows",
                retry_after_s=oldest + CLAIM_WINDOW_S + 1 - now,
            )
        self._claims.setdefault(timestamp, {}).setdefault(app, {})[nonce] = signature
        self._claims_count[app] += 1

    def _forget_claims(self, *, before: int) -> None:
        for second in [second for second in self._claims if second < before]:
            for app, claims in self._claims.pop(second).items():
                self._claims_count[app] -= len(claims)
                if not self._claims_count[app]:
                    del self._claims_count[app]

    async def send(self, publication: Publication) -> None:
        self.hand_on(self._recovery.keep(publication))

    def hand_on(self, publication: Publication) -> None:
        """Deliver a publication if the node is subscribed to its stream."""
        # A private message reaches one connection, regardless of its subscriptions.
        wanted = publication.kind is Kind.PRIVATE or self._nodes(publication)
        if wanted and self.deliver is not None:
            self.deliver(publication)

    def _nodes(self, publication: Publication) -> int:
        """1 if this node listens to the publication's destination, otherwise 0."""
        if publication.kind is Kind.PRIVATE:
            return int(node_of(publication.name) == self.node)
        return int((publication.app, publication.name) in self._subscribed)


class MemoryPresence:
    """Presence on the streams of one process.

    Parameters:
        hand_on: delivers an event to the subscribers of its stream.
        webhooks: the queues that events are added to.
        max_lingering_users: how many lost connections are still present at once.
    """

    def __init__(self, hand_on: Deliver, webhooks: MemoryWebhooks, *, max_lingering_users: int) -> None:
        self._hand_on = hand_on
        self._webhooks = webhooks
        self._lingering = Lingering(lambda entry: self.leave(*entry), max_users=max_lingering_users)
        self._present: dict[tuple[AppKey, str], _Present] = {}

    async def join(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> PresentUsers:
        present = self._present.setdefault((app, stream), _Present())
        connections = present.users.setdefault(user_id, set())
        connections.add(subscriber_id)
        if len(connections) == 1:
            self._announce(app, stream, user_id, present, up=True)
        else:
            self._lingering.replace(app, stream, user_id)
        return PresentUsers(tuple(present.users), present.version)

    def leave(
        self, app: AppKey, stream: str, user_id: str, subscriber_id: str, *, linger_s: float = 0.0
    ) -> None:
        present = self._present.get((app, stream))
        connections = present.users.get(user_id, set()) if present is not None else set()
        if present is None or subscriber_id not in connections:
            return
        if linger_s:
            self._lingering.begin(Entry(app, stream, user_id, subscriber_id), linger_s)
            return
        connections.remove(subscriber_id)
        if connections:
            return
        del present.users[user_id]
        self._announce(app, stream, user_id, present, up=False)
        if not present.users:
            del self._present[app, stream]

    def end_lingering(self, app: AppKey, connection_ids: Collection[str]) -> None:
        self._lingering.end(app, connection_ids)

    async def users(self, app: AppKey, stream: str) -> Collection[str]:
        present = self._present.get((app, stream))
        return () if present is None else present.users

    async def count_users(self, app: AppKey, streams: Sequence[str]) -> Sequence[int]:
        return [len(await self.users(app, stream)) for stream in streams]

    def _announce(self, app: AppKey, stream: str, user_id: str, present: _Present, *, up: bool) -> None:
        present.version += 1
        event = encode_presence(stream, user_id, up=up)
        self._hand_on(Publication(app, Kind.PRESENCE, stream, event, user_id, present.version))
        self._webhooks.add(app, stream, user_id, is_up=up)


class MemoryRevocations:
    """The only node remembers what was revoked by itself.

    Parameters:
        clock: seconds since 1970.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last_ms = 0

    def now_ms(self) -> int:
        self._last_ms = max(self._last_ms, round(self._clock() * 1000))
        return self._last_ms

    async def revoke(self, app: AppKey, subscriber_ids: Collection[str], user_id: str | None) -> int:  # noqa: ARG002
        revoked_ms = self.now_ms()
        self._last_ms += 1  # sessions that begin now are later, even if the clock was set back
        return revoked_ms


class NoOtherNodes:
    """The node calls of a server that is one process."""

    async def ask(self, subscriber_id: str, question: bytes, *, timeout_s: float) -> bytes | None:  # noqa: ARG002
        return None

    async def ask_each(
        self,
        question: bytes,  # noqa: ARG002
        *,
        timeout_s: float,  # noqa: ARG002
    ) -> Mapping[str, bytes | BrokerUnavailableError]:
        return {}


class MemoryBackend:
    """Broker, presence and node calls of a server that is one process.

    Parameters:
        max_claims: claimed nonces of each app that are kept; a publish past that is refused.
        apps: apps with their own rules for history.
        limits: the limits for all others; ``None`` for the defaults.
        monotonic: the clock of the rate limits, in seconds.
    """

    def __init__(
        self,
        *,
        max_claims: int,
        apps: Sequence[App] = (),
        limits: Limits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or Limits()
        self.recovery = MemoryRecovery(apps, limits)
        self.broker = MemoryBroker(max_claims=max_claims, recovery=self.recovery, monotonic=monotonic)
        self.webhooks = MemoryWebhooks(apps, max_events=limits.max_webhook_events)
        self.presence = MemoryPresence(
            self.broker.hand_on, self.webhooks, max_lingering_users=limits.max_lingering_users
        )
        self.calls = NoOtherNodes()
        self.revocations = MemoryRevocations()

    @property
    def unavailable_reason(self) -> str | None:
        return None if self.broker.deliver is not None else "the server is shutting down"

    def new_subscriber_id(self) -> str:
        return new_subscriber_id(self.broker.node)

    async def start(
        self,
        deliver: Deliver,
        answer: Answer,  # noqa: ARG002 - no node asks
        missed: Missed = lambda _: None,  # noqa: ARG002 - nothing is missed
        moved: Moved = lambda _, __: None,  # noqa: ARG002 - no other node continues a session
        read_logs: Callable[[], Logs] = tuple,  # noqa: ARG002 - nothing is read again
        *,
        revoked: Revoked = ignore_revoked,  # noqa: ARG002 - this node has heard of everything
    ) -> None:
        self.broker.deliver = deliver

    async def close(self) -> None:
        self.broker.deliver = None
