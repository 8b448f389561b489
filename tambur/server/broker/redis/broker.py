"""The broker of many nodes over one Redis. docs/how-to/redis.md lists the keys that it uses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from ...logs import line
from .. import (
    CLAIM_WINDOW_S,
    Answer,
    AppKey,
    BrokerUnavailableError,
    Claim,
    Deliver,
    Missed,
    Outcome,
    Presence,
    Publication,
    Published,
)
from . import scripts
from .calls import Questions
from .keys import Keys, decode, decode_private, encode_entry, new_node, new_subscriber_id, node_of
from .link import CALL_TIMEOUT_S, RETRY_AFTER_S, Link, Wire
from .presence import Entry, Pictures
from .replay import Recent
from .urls import RedisUrl

try:
    from redis.asyncio import Connection, Sentinel, SentinelConnectionPool, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError as error:
    raise ImportError(
        "the broker redis:// needs the package redis, which is not installed; pip install 'tambur[redis]'",
        name=error.name,
    ) from None

FIRST_RECONNECT_WAIT_S = 0.1
MAX_RECONNECT_WAIT_S = 1.0
"""How long to wait before reaching for Redis again, in seconds; each wait is twice the one before."""

GOODBYE_TIMEOUT_S = 1.0
"""How long the end of a node waits for Redis to take its users away, in seconds."""

MAX_CLOCK_SKEW_S = 30
"""How far the clocks of two nodes may be apart, in seconds: claims are kept for that much longer."""

MAX_SWEPT_AT_ONCE = 500
"""How many users of a node that died are taken away in one step, for which everything else waits."""

# In parts of node_timeout_s: a lease outlasts some failures to renew it, and is swept in time if it ends.
_LEASE = 0.75
_RENEWAL = 0.125

_SENTINEL_TIMEOUT_S = 0.5  # several may have to be asked within the time that a connection may take

logger = logging.getLogger("tambur.server")


class RedisBroker:
    """One node's part in the cluster.

    Parameters:
        url: where Redis is.
        max_claims: how many claimed nonces of an app the cluster keeps; a publish past it is refused.
        node_timeout_s: after how many seconds without a sign of life a node's users are down.
    """

    def __init__(self, url: RedisUrl, *, max_claims: int, node_timeout_s: float) -> None:
        self._server = _Server(url)
        self._keys = Keys(url.database)
        self._max_claims = max_claims
        self._node_timeout_s = node_timeout_s
        self._node = new_node()
        self._node_key = self._keys.node(self._node)
        self._deliver: Deliver = lambda _: None
        self._streams: dict[bytes, tuple[AppKey, str]] = {}
        self._pictures = Pictures()
        self._questions = Questions(self._node, self._tell)
        self._recent = Recent(self._keys, self._take)
        self._supervisor: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._links_count = 0
        # A link that is there is not ready before the node has caught up with what happened without it.
        self._is_ready = False
        self._leased_until_ms = 0
        self._clock_offset_ms = 0.0  # Redis' clock less the event loop's
        self._may_tell_downs = True

    @property
    def trouble(self) -> str | None:
        return None if self._is_ready else "Redis cannot be reached"

    # Starting, and staying linked.

    async def start(self, deliver: Deliver, answer: Answer, missed: Missed = lambda: None) -> None:
        self._deliver, self._recent.missed = deliver, missed
        self._questions.start(answer)
        tried = asyncio.Event()
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise(tried))
        await tried.wait()

    async def close(self) -> None:
        for entry in list(self._pictures):
            self.leave(*entry)
        if self._is_ready and self._link is not None:
            try:
                # Its answer comes after all that was sent before it.
                await asyncio.wait_for(self._link.call("PING"), GOODBYE_TIMEOUT_S)
            except (BrokerUnavailableError, asyncio.TimeoutError):
                logger.warning(
                    line("Redis heard no goodbye: users are down later", timeout_s=self._node_timeout_s)
                )
        self._deliver = lambda _: None
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._server.close()

    async def _supervise(self, tried: asyncio.Event) -> None:
        wait_s = FIRST_RECONNECT_WAIT_S
        was_told = False
        while True:
            link = Link(self._server.wire(), self._server.wire(), self._receive)
            try:
                await self._open(link)
                if was_told:
                    logger.warning("Redis is back")
                was_told, wait_s = False, FIRST_RECONNECT_WAIT_S
                self._is_ready = True
                tried.set()
                await self._keep(link)
            except (RedisError, OSError, asyncio.TimeoutError, BrokerUnavailableError) as error:
                reason = link.failed.result() if link.failed.done() else error
                if not was_told:
                    told = str(reason) or repr(reason)
                    logger.warning(line("Redis is away, trying again until it is back", reason=told))
                was_told = True
            except Exception:
                logger.exception(line("link to Redis failed, trying again"))
            finally:
                self._is_ready = False
                self._link = None
                self._questions.withdraw_all()
                await link.close()
            tried.set()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_RECONNECT_WAIT_S, self._node_timeout_s * _RENEWAL)

    async def _open(self, link: Link) -> None:
        """Connect, and catch up with what happened without this node."""
        await link.open()
        self._links_count += 1
        self._recent.hold()
        await asyncio.gather(*(link.call("SCRIPT", "LOAD", script.text) for script in scripts.ALL))
        await link.subscribe(self._node_key)
        before = self._leased_until_ms
        if await self._take_lease(link, scripts.ENTER) < before:
            # Redis has forgotten what it knew, or others have taken this node for dead. In the first case
            # they may not have told it again yet who is with them, and are given time to.
            self._may_tell_downs = False
        self._link = link
        await asyncio.gather(*map(link.subscribe, self._streams))
        await self._recent.catch_up(link)
        held = set(await link.call("SMEMBERS", self._node_key))
        wanted = {encode_entry(entry): entry for entry in self._pictures}
        for encoded in held - set(wanted):
            self._send_leave(link, encoded)
        for encoded in set(wanted) - held:
            self._send_join(link, wanted[encoded], b"")
        await self._compare(link)

    async def _keep(self, link: Link) -> None:
        """Renew the lease until the link fails, and take away the users of nodes that did not."""
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        while True:
            await asyncio.wait([link.failed], timeout=self._node_timeout_s * _RENEWAL)
            await self._take_lease(link, scripts.LEASE)
            # When Redis comes back all leases may have ended; who is alive is given time to renew his.
            if loop.time() - opened_at < self._node_timeout_s * _LEASE:
                continue
            if not self._may_tell_downs:
                self._may_tell_downs = True
                await self._compare(link)
            keys = self._keys.links, self._keys.leases
            while await link.call(*scripts.SWEEP(self._keys.prefix, MAX_SWEPT_AT_ONCE, keys=keys)):
                pass

    async def _take_lease(self, link: Link, script: scripts.Script) -> int:
        """Returns until when the lease was before, in milliseconds since 1970; 0 if there was none."""
        head, heard = link.ask(self._recent.reach)
        lease_ms = round(self._node_timeout_s * _LEASE * 1000)
        keys = self._keys.links, self._keys.leases, self._keys.place
        before, until_ms = await link.call(*script(*self._fence(), lease_ms, self._node_key, head, keys=keys))
        self._leased_until_ms = int(until_ms)
        self._clock_offset_ms = int(until_ms) - lease_ms - asyncio.get_running_loop().time() * 1000
        await heard
        return int(before or 0)

    async def _compare(self, link: Link) -> None:
        """Hold every picture against who is there, and tell what differs."""
        answers = []
        for app, stream in self._pictures.streams():
            head, answered = link.ask(partial(self._on_present, app, stream))
            link.send(*scripts.PRESENT(self._node_key, head, keys=(self._keys.present(app, stream),)))
            answers.append(answered)
        await asyncio.gather(*answers)

    # What Redis tells.

    def _receive(self, channel: bytes, data: bytes) -> None:
        if self._recent.receive(channel, data):
            return
        head, _, rest = data.partition(b"\n")
        if channel == self._node_key:
            self._questions.receive(head, rest)
        elif channel in self._streams:  # and was not left just now
            app, stream = self._streams[channel]
            told = self._pictures.event(app, stream, rest.decode(), up={b"up": True, b"down": False}[head])
            if told is not None:
                self._deliver(told)

    def _take(self, channel: bytes, data: bytes, place: int) -> None:
        if channel == self._node_key:
            self._deliver(decode_private(data))
        elif channel in self._streams:
            self._deliver(decode(*self._streams[channel], data, place))

    def _on_present(self, app: AppKey, stream: str, data: bytes) -> None:
        user_ids = data.decode().split("\n") if data else []
        for told in self._pictures.compare(app, stream, user_ids, downs=self._may_tell_downs):
            self._deliver(told)

    def _on_joined(self, entry: Entry, data: bytes) -> Presence:
        self._pictures.add(entry)
        self._on_present(entry.app, entry.stream, data)
        return self._pictures.presence(entry.app, entry.stream)

    # What the hub and the publishing call.

    def new_subscriber_id(self) -> str:
        return new_subscriber_id(self._node)

    async def subscribe(self, app: AppKey, stream: str) -> None:
        channel = self._keys.stream(app, stream)
        link = self._ready_link()
        self._streams[channel] = app, stream
        try:
            await link.subscribe(channel)
        except BrokerUnavailableError:
            self._streams.pop(channel, None)
            raise

    async def place(self) -> int:
        return int(await self._ready_link().call("HGET", self._keys.place, "last") or 0)

    def unsubscribe(self, app: AppKey, stream: str) -> None:
        channel = self._keys.stream(app, stream)
        self._streams.pop(channel, None)
        if self._link is not None:
            self._link.unsubscribe(channel)

    async def publish(
        self, publication: Publication, claim: Claim, *, now: int, max_publishes_per_s: float | None
    ) -> Published:
        link = self._ready_link()
        outcome, retry_after_s = await link.call(
            *scripts.PUBLISH(
                self._deadline_ms(),
                *self._keys.encode(publication),
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
        return Published(Outcome[outcome.decode().upper()], float(retry_after_s))

    async def claimed(self, claim: Claim) -> Outcome | None:
        key = self._keys.claims(claim.app, claim.timestamp)
        signature = await self._ready_link().call("HGET", key, claim.nonce)
        if signature is None:
            return None
        return Outcome.REPLAYED if signature == claim.signature else Outcome.NONCE_REUSED

    async def send(self, publication: Publication) -> None:
        encoded, keys = self._keys.encode(publication), self._keys.publications
        await self._ready_link().call(*scripts.DIRECT(self._deadline_ms(), *encoded, keys=keys))

    async def ask(self, subscriber_id: str, question: bytes, *, timeout_s: float) -> bytes | None:
        node = node_of(subscriber_id)
        if node == self._node:
            return None
        send = partial(self._send, self._keys.node(node))
        return await self._questions.ask(
            node, question, link=self._ready_link(), send=send, timeout_s=timeout_s
        )

    async def join(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> Presence:
        link = self._ready_link()
        entry = Entry(app, stream, user_id, subscriber_id)
        head, joined = link.ask(partial(self._on_joined, entry))
        self._send_join(link, entry, head)
        presence: Presence = await joined
        return presence

    def leave(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> None:
        entry = Entry(app, stream, user_id, subscriber_id)
        # Without a link it is enough to forget him: the next one leaves whom the node doesn't know.
        if self._pictures.remove(entry) and self._link is not None:
            self._send_leave(self._link, encode_entry(entry))

    async def _send(self, channel: bytes, data: bytes) -> int:
        """Returns how many nodes listen."""
        count: int = await self._ready_link().call(*scripts.SEND(self._deadline_ms(), channel, data, keys=()))
        return count

    def _tell(self, node: str, data: bytes) -> None:
        if self._link is not None:
            self._link.send("PUBLISH", self._keys.node(node), data)

    def _ready_link(self) -> Link:
        if self._link is None or not self._is_ready:
            raise BrokerUnavailableError("the broker cannot be reached", RETRY_AFTER_S)
        return self._link

    def _deadline_ms(self) -> int:
        """When a call that is made now will have been given up, by Redis' clock."""
        return round((asyncio.get_running_loop().time() + CALL_TIMEOUT_S) * 1000 + self._clock_offset_ms)

    def _fence(self) -> tuple[str, int]:
        return self._node, self._links_count

    def _send_join(self, link: Link, entry: Entry, answer: bytes) -> None:
        app, stream, user_id, _ = entry
        channel = self._keys.stream(app, stream)
        keys = self._keys.links, self._node_key, self._keys.present(app, stream)
        link.send(
            *scripts.JOIN(
                *self._fence(), encode_entry(entry), user_id, channel, self._node_key, answer, keys=keys
            )
        )

    def _send_leave(self, link: Link, encoded: bytes) -> None:
        keys = self._keys.links, self._node_key
        link.send(*scripts.LEAVE(*self._fence(), encoded, self._keys.prefix, keys=keys))


class _Server:
    """Makes connections to a Redis, wherever it is."""

    def __init__(self, url: RedisUrl) -> None:
        # The link has a timeout of its own, and the broker starts another when it fails.
        patient = {"socket_timeout": None, "socket_connect_timeout": None}
        settings: dict[str, Any] = {
            "db": url.database,
            "username": url.username,
            "password": url.password,
            "protocol": 2,
            **patient,
        }
        if url.tls is not None:
            # Not every release of redis-py checks these by itself.
            settings |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **url.tls}
        self._sentinels: list[Any] = []
        if url.service is None:
            host, port = url.hosts[0]
            connection = Connection if url.tls is None else SSLConnection
            self.wire: Callable[[], Wire] = partial(connection, host=host, port=port, **settings)
            return
        impatient = {
            "socket_timeout": _SENTINEL_TIMEOUT_S,
            "socket_connect_timeout": _SENTINEL_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        }
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            url.hosts, sentinel_kwargs=impatient
        )
        self._sentinels = sentinel.sentinels
        pool = SentinelConnectionPool(url.service, sentinel, **settings)  # type: ignore[no-untyped-call]
        self.wire = pool.make_connection

    async def close(self) -> None:
        for sentinel in self._sentinels:
            await sentinel.aclose()
