"""Publishing and delivery over Redis. docs/how-to/redis.md lists the keys."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from ...logs import line
from .. import (
    CLAIM_WINDOW_S,
    AppKey,
    BrokerUnavailableError,
    Claim,
    Deliver,
    Logs,
    Missed,
    Moved,
    Outcome,
    Publication,
    Published,
)
from . import scripts
from .catch_up import Callbacks, CatchUp
from .keys import decode, decode_private, encode, log_of, scope
from .link import Link
from .logs import Log, LogReader
from .recovery import RedisRecovery
from .rules import Rules
from .shard import MAX_CLOCK_SKEW_S, NodePart, Shard

_OUTCOMES = {outcome.name.lower().encode(): outcome for outcome in Outcome}

_NO_MESSAGE = "", "", 0, 0, b""

logger = logging.getLogger("tambur.server")

BATCH_STEP = 50
"""How many publications of a batch one script publishes: Redis is busy with them for a millisecond or two."""


class RedisBroker(NodePart):
    """One node's publications and subscriptions.

    Parameters:
        shard: the Redis.
        rules: how much of each log is kept.
        reader: reads the logs.
        recovery: notes what arrives.
        max_claims: claimed nonces of an app that the cluster keeps; a publish past that is refused.

    Attributes:
        streams: the app and the stream of each channel that the node is subscribed to.
    """

    def __init__(
        self, shard: Shard, rules: Rules, reader: LogReader, recovery: RedisRecovery, *, max_claims: int
    ) -> None:
        self._shard = shard
        self._keys = shard.keys
        self._rules = rules
        self._recovery = recovery
        self._max_claims = max_claims
        self._catch_up = CatchUp(reader, recovery)
        # Publications that arrive while the node catches up wait for their turn.
        self._held: list[tuple[int, bytes, bytes]] | None = None
        shard.before_open = self._hold
        shard.on_place = self._reach
        self.streams: dict[bytes, Log] = {}
        self.deliver: Deliver = lambda _: None
        self._callbacks = Callbacks()
        self._read_logs: Callable[[], Logs] = tuple

    def start(self, deliver: Deliver, missed: Missed, moved: Moved, read_logs: Callable[[], Logs]) -> None:
        self.deliver, self._read_logs = deliver, read_logs
        self._callbacks = Callbacks(self._deliver, missed, moved)

    async def subscribe(self, app: AppKey, stream: str) -> None:
        channel = self._keys.stream(app, stream)
        link = self._shard.ready_link()
        self.streams[channel] = log = Log(app, stream)
        try:
            await link.subscribe(channel)
            await self._recovery.begin(link, log)
        except BrokerUnavailableError:
            self.streams.pop(channel, None)
            raise

    async def sync(self) -> None:
        await self._recovery.sync()

    def unsubscribe(self, app: AppKey, stream: str) -> None:
        channel = self._keys.stream(app, stream)
        log = self.streams.pop(channel, None)
        if log is not None:
            self._recovery.end(log)
        if self._shard.link is not None:
            self._shard.link.unsubscribe(channel)

    async def publish(
        self, publication: Publication, claim: Claim, *, now: int, max_publishes_per_s: float | None
    ) -> Published:
        return await self._publish(self._message(publication), claim, now, max_publishes_per_s)

    async def _publish(
        self, message: tuple[Any, ...], claim: Claim, now: int, max_publishes_per_s: float | None
    ) -> Published:
        """Claim a nonce and publish a message, or none."""
        answer, retry_after_s, nodes, place = await self._shard.ready_link().call(
            *scripts.PUBLISH(
                *self._claim_arguments(claim, now, max_publishes_per_s),
                *message,
                keys=(),
            )
        )
        last = int(place)
        self._shard.epoch.see(last)
        outcome = self._outcome(answer, retry_after_s)
        return Published(outcome, float(retry_after_s), nodes, last if outcome is Outcome.DELIVERED else 0)

    async def admit(self, claim: Claim, *, now: int, max_publishes_per_s: float | None) -> Published:
        return await self._publish(_NO_MESSAGE, claim, now, max_publishes_per_s)

    async def publish_batch(
        self,
        publications: Sequence[Publication],
        claim: Claim,
        *,
        now: int,
        max_publishes_per_s: float | None,
    ) -> Published:
        messages = [self._message(publication) for publication in publications]
        outcome, done = Outcome.REPLAYED, 0
        while done < len(messages):
            answer, retry_after_s, published, place = await self._shard.ready_link().call(
                *scripts.BATCH(
                    *self._claim_arguments(claim, now, max_publishes_per_s),
                    done,
                    len(messages),
                    *itertools.chain.from_iterable(messages[done : done + BATCH_STEP]),
                    keys=(),
                )
            )
            self._shard.epoch.see(int(place))
            of_step = self._outcome(answer, retry_after_s)
            if of_step not in {Outcome.DELIVERED, Outcome.REPLAYED}:
                return Published(of_step, float(retry_after_s))
            if of_step is Outcome.DELIVERED:
                outcome = of_step
            # The same request may come again meanwhile, and publish some of the messages.
            done = published
        return Published(outcome)

    def _message(self, publication: Publication) -> tuple[Any, ...]:
        """The arguments of a message in scripts: log, budget, limits, and data."""
        return *self._log_arguments(publication), encode(publication)

    def _claim_arguments(self, claim: Claim, now: int, max_publishes_per_s: float | None) -> tuple[Any, ...]:
        return (
            self._shard.deadline(),
            self._keys.prefix,
            scope(claim.app),
            claim.nonce,
            claim.signature,
            claim.timestamp,
            now,
            CLAIM_WINDOW_S + MAX_CLOCK_SKEW_S,
            self._max_claims,
            "" if max_publishes_per_s is None else max_publishes_per_s,
        )

    def _outcome(self, answer: bytes, retry_after_s: bytes) -> Outcome:
        if answer == b"full":
            raise BrokerUnavailableError(
                f"{self._max_claims} publishes are remembered, the most that max_claims allows",
                retry_after_s=float(retry_after_s),
            )
        return _OUTCOMES[answer]

    def _log_arguments(self, publication: Publication) -> tuple[str, str, int, int]:
        log = log_of(publication)
        rule = self._rules.of(publication.app, log)
        return log, rule.budget, rule.max_messages, rule.max_bytes

    async def claimed(self, claim: Claim) -> Outcome | None:
        key = self._keys.claims(claim.app, claim.timestamp)
        signature = await self._shard.ready_link().call("HGET", key, claim.nonce)
        if signature is None:
            return None
        return Outcome.REPLAYED if signature == claim.signature else Outcome.NONCE_REUSED

    async def send(self, publication: Publication) -> None:
        app = publication.app
        channel, data = self._keys.stream(app, publication.name), encode(publication)
        arguments = self._shard.deadline(), self._keys.prefix, channel, data, scope(app)
        place = await self._shard.ready_link().call(
            *scripts.DIRECT(*arguments, *self._log_arguments(publication), keys=())
        )
        self._shard.epoch.see(int(place))

    # Callbacks of the link

    def _hold(self) -> None:
        self._held = []

    def _reach(self, place: bytes) -> None:
        if self._held is None:
            self._recovery.reach(int(place))

    def receive(self, channel: bytes, data: bytes) -> bool:
        place, space, rest = data.partition(b" ")
        if not space or not place.isdigit():
            return False
        if self._held is not None:
            self._held.append((int(place), channel, rest))
        else:
            self._take(int(place), channel, rest)
        return True

    async def catch_up(self, link: Link, *, in_doubt: bool) -> None:  # noqa: ARG002 - the epoch says more
        recovery = self._recovery
        await asyncio.gather(*map(link.subscribe, self.streams))
        if recovery.is_same_epoch:
            for log in await recovery.owners.confirm(link):
                self._callbacks.moved(log.app, log.name.removeprefix("private:"))
            logs = [*self.streams.values(), *(Log(*log) for log in self._read_logs())]
            await self._catch_up.run(link, logs, self._callbacks)
            place, last = 0, await recovery.mark(link)
        else:
            place = last = await recovery.mark(link)
            if recovery.place:
                logger.error(line("Redis may have lost messages: subscribers missed messages"))
                self._callbacks.missed(None)
            recovery.reset(self.streams.values(), last)
        held, self._held = self._held or [], None
        for at, channel, data in held:
            publication = self._decode(at, channel, data)
            if publication is not None:
                log = Log(publication.app, log_of(publication))
                if at > recovery.ahead.get(log, place):
                    self._deliver(publication)
            last = max(last, at)
        recovery.reach(last)
        recovery.ahead.clear()

    def _take(self, place: int, channel: bytes, data: bytes) -> None:
        self._recovery.reach(place)
        publication = self._decode(place, channel, data)
        if publication is not None:
            self._deliver(publication)

    def _decode(self, place: int, channel: bytes, data: bytes) -> Publication | None:
        """Returns ``None`` for a stream that was unsubscribed meanwhile."""
        if channel == self._shard.node_key:
            return decode_private(data, place)
        log = self.streams.get(channel)
        return None if log is None else decode(*log, data, place)

    def _deliver(self, publication: Publication) -> None:
        self._recovery.append(publication)
        self.deliver(publication)
