"""Publishing and delivery over Redis. docs/how-to/redis.md lists the keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .. import (
    CLAIM_WINDOW_S,
    AppKey,
    BrokerUnavailableError,
    Claim,
    Deliver,
    Missed,
    Outcome,
    Publication,
    Published,
)
from . import scripts
from .keys import decode, decode_private
from .link import Link
from .replay import Recent
from .shard import Shard

MAX_CLOCK_SKEW_S = 30
"""How far the clocks of two nodes may be apart, in seconds: claims are kept for that much longer."""


BATCH_STEP = 50
"""How many publications of a batch are sent to Redis at once."""


class RedisBroker:
    """One node's publications and subscriptions.

    Parameters:
        shard: the Redis.
        max_claims: claimed nonces of an app that the cluster keeps; a publish past that is refused.

    Attributes:
        streams: the app and the stream of each channel that the node is subscribed to.
    """

    def __init__(self, shard: Shard, *, max_claims: int) -> None:
        self._shard = shard
        self._keys = shard.keys
        self._max_claims = max_claims
        self._recent = Recent(shard.keys, self._take)
        shard.before_open = self._recent.hold
        shard.on_place = self._recent.reach
        self.streams: dict[bytes, tuple[AppKey, str]] = {}
        self.deliver: Deliver = lambda _: None

    def start(self, deliver: Deliver, missed: Missed) -> None:
        self.deliver, self._recent.missed = deliver, missed

    async def subscribe(self, app: AppKey, stream: str) -> None:
        channel = self._keys.stream(app, stream)
        link = self._shard.ready_link()
        self.streams[channel] = app, stream
        try:
            await link.subscribe(channel)
        except BrokerUnavailableError:
            self.streams.pop(channel, None)
            raise

    async def place(self) -> int:
        return int(await self._shard.ready_link().call("HGET", self._keys.place, "last") or 0)

    def unsubscribe(self, app: AppKey, stream: str) -> None:
        channel = self._keys.stream(app, stream)
        self.streams.pop(channel, None)
        if self._shard.link is not None:
            self._shard.link.unsubscribe(channel)

    async def publish(
        self, publication: Publication, claim: Claim, *, now: int, max_publishes_per_s: float | None
    ) -> Published:
        return await self._publish(*self._keys.encode(publication), claim, now, max_publishes_per_s)

    async def _publish(
        self, channel: bytes, data: bytes, claim: Claim, now: int, max_publishes_per_s: float | None
    ) -> Published:
        """Claim a nonce and publish to a channel; to none if it is empty."""
        link = self._shard.ready_link()
        outcome, retry_after_s, nodes = await link.call(
            *scripts.PUBLISH(
                self._shard.deadline_ms(),
                channel,
                data,
                claim.nonce,
                claim.signature,
                claim.timestamp,
                now,
                CLAIM_WINDOW_S + MAX_CLOCK_SKEW_S,
                self._max_claims,
                "" if max_publishes_per_s is None else max_publishes_per_s,
                keys=self._keys.publishing(claim.app, claim.timestamp),
            )
        )
        if outcome == b"full":
            raise BrokerUnavailableError(
                f"{self._max_claims} publishes are remembered, the most that max_claims allows",
                retry_after_s=float(retry_after_s),
            )
        return Published(Outcome[outcome.decode().upper()], float(retry_after_s), nodes)

    async def admit(self, claim: Claim, *, now: int, max_publishes_per_s: float | None) -> Published:
        return await self._publish(b"", b"", claim, now, max_publishes_per_s)

    async def publish_batch(
        self,
        publications: Sequence[Publication],
        claim: Claim,
        *,
        now: int,
        max_publishes_per_s: float | None,
    ) -> Published:
        first, *others = publications
        published = await self.publish(first, claim, now=now, max_publishes_per_s=max_publishes_per_s)
        if published.outcome not in {Outcome.DELIVERED, Outcome.REPLAYED}:
            return published
        outcomes: set[Outcome] = {published.outcome}
        for start in range(0, len(others), BATCH_STEP):
            # Each has a claim of its own. The script runs in the order in which it is called.
            step = [
                self.publish(other, _numbered(claim, start + i), now=now, max_publishes_per_s=None)
                for i, other in enumerate(others[start : start + BATCH_STEP])
            ]
            outcomes |= {published.outcome for published in await asyncio.gather(*step)}
        return Published(Outcome.DELIVERED if Outcome.DELIVERED in outcomes else Outcome.REPLAYED)

    async def claimed(self, claim: Claim) -> Outcome | None:
        key = self._keys.claims(claim.app, claim.timestamp)
        signature = await self._shard.ready_link().call("HGET", key, claim.nonce)
        if signature is None:
            return None
        return Outcome.REPLAYED if signature == claim.signature else Outcome.NONCE_REUSED

    async def send(self, publication: Publication) -> None:
        encoded, keys = self._keys.encode(publication), (self._keys.recent_direct, self._keys.place)
        await self._shard.ready_link().call(*scripts.DIRECT(self._shard.deadline_ms(), *encoded, keys=keys))

    # Callbacks of the link

    def receive(self, channel: bytes, data: bytes) -> bool:
        return self._recent.receive(channel, data)

    async def catch_up(self, link: Link, *, in_doubt: bool) -> None:  # noqa: ARG002 - Recent finds out by itself
        await asyncio.gather(*map(link.subscribe, self.streams))
        await self._recent.catch_up(link)

    async def maintain(self, link: Link) -> None:
        """Nothing to do."""

    def unlink(self) -> None:
        """Nothing to do: the next link catches up."""

    def _take(self, channel: bytes, data: bytes, place: int) -> None:
        if channel == self._shard.node_key:
            self.deliver(decode_private(data))
        elif channel in self.streams:  # and was not unsubscribed meanwhile
            self.deliver(decode(*self.streams[channel], data, place))


def _numbered(claim: Claim, number: int) -> Claim:
    """The claim of one message of a batch. No nonce's digest is as long."""
    return claim._replace(nonce=b"%s %d" % (claim.nonce, number))
