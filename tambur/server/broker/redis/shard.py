"""One Redis, as one node sees it: a link that a supervisor keeps up, and the node's lease."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from redis.asyncio import Connection, Sentinel, SentinelConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ...logs import line
from .. import BrokerUnavailableError
from ..ids import new_node
from . import scripts
from .epoch import Epoch
from .keys import Keys
from .link import CALL_TIMEOUT_S, RETRY_AFTER_S, Link, RedisConnection
from .urls import RedisUrl

MAX_CLOCK_SKEW_S = 30
"""How far the clocks of two nodes, or of a node and Redis, may be apart, in seconds."""

FIRST_RECONNECT_WAIT_S = 0.1
MAX_RECONNECT_WAIT_S = 1.0
"""Wait before connecting to Redis again, in seconds; each wait is twice the one before."""

GOODBYE_TIMEOUT_S = 1.0
"""How long a stopping node waits for Redis to remove its users, in seconds."""

# In parts of node_timeout_s: a lease outlasts some failed renewals, and is swept in time after it ends.
_LEASE = 0.75
_RENEWAL = 0.125

_EPOCH_BYTES = 16

_SENTINEL_TIMEOUT_S = 0.5  # several may have to be asked within the time that a connection may take

logger = logging.getLogger("tambur.server")


class NodePart:
    """A part of the node whose state follows the link. By itself it does nothing."""

    def receive(self, channel: bytes, data: bytes) -> bool:  # noqa: ARG002
        """Take a message if it is for this part; returns whether it was."""
        return False

    async def catch_up(self, link: Link, *, in_doubt: bool) -> None:
        """Bring Redis and this node into step, after a new link was opened.

        Parameters:
            in_doubt: whether Redis lost its data, or other nodes took this node for dead.
        """

    async def maintain(self, link: Link) -> None:
        """Called after each renewal of the lease, once other nodes have had time to renew theirs."""

    def unlink(self) -> None:
        """The link is gone."""


class Shard:
    """The link to one Redis. The parts of the node use it, in the order in which they were added.

    Parameters:
        url: where Redis is.
        node_timeout_s: seconds without a renewed lease after which other nodes take this node for dead.

    Attributes:
        keys: the names of keys and channels.
        node: this node's ID.
        node_key: the channel that only this node listens to.
        epoch: the history that Redis holds.
        parts: what follows the link.
        before_open: called when a link was opened, before it receives anything.
        on_place: called with the place of the last publication, in its turn among the messages.
    """

    def __init__(self, url: RedisUrl, *, node_timeout_s: float) -> None:
        self.keys = Keys(url.database)
        self.node = new_node()
        self.node_key = self.keys.node(self.node)
        self.epoch = Epoch()
        self.parts: list[NodePart] = []
        self.before_open: Callable[[], None] = lambda: None
        self.on_place: Callable[[bytes], None] = lambda _: None
        self._connections = _Connections(url)
        self._node_timeout_s = node_timeout_s
        self._supervisor: asyncio.Task[None] | None = None
        self._is_closing = False
        self._link: Link | None = None
        self._links_count = 0
        self._link_name = b""  # the end of every deadline
        # A new link is not ready before the node has caught up.
        self._is_ready = False
        self._leased_until_ms = 0
        # The last announcement of a node since this one entered or renewed its lease.
        self._news: bytes | None = None
        self._clock_offset_ms = 0.0  # Redis' clock less the event loop's

    @property
    def unavailable_reason(self) -> str | None:
        """Why Redis cannot be used now; ``None`` if it can."""
        return None if self._is_ready else "Redis cannot be reached"

    @property
    def link(self) -> Link | None:
        """The link, for operations that must not fail. Without a link, the next one repairs the state."""
        return self._link

    def ready_link(self) -> Link:
        """The link.

        Raises:
            BrokerUnavailableError: if there is none, or the node has not caught up yet.
        """
        if self._link is None or not self._is_ready:
            raise BrokerUnavailableError("the broker cannot be reached", RETRY_AFTER_S)
        return self._link

    def deadline(self) -> bytes:
        """The argument of scripts that refuse calls which are too late, or of a former link.

        By the deadline, in milliseconds since 1970 by Redis' clock, a call made now will have timed out.
        """
        ms = round((asyncio.get_running_loop().time() + CALL_TIMEOUT_S) * 1000 + self._clock_offset_ms)
        return b"%d %s" % (ms, self._link_name)

    def now_us(self) -> int:
        """Redis' clock, in microseconds since 1970."""
        return round((asyncio.get_running_loop().time() * 1000 + self._clock_offset_ms) * 1000)

    def ask_place(self, link: Link, on_last: Callable[[int], None]) -> tuple[bytes, asyncio.Future[int]]:
        """Expect the last place, in its turn among the messages; a script publishes it.

        Parameters:
            on_last: called with the place, in that turn.

        Returns:
            The first line of its message, and the place.
        """

        def reach(data: bytes) -> int:
            last = int(data)
            self.on_place(data)
            on_last(last)
            return last

        return link.ask(reach)

    def fence(self) -> tuple[str, int]:
        """The values that scripts compare, so that a former link's late commands change nothing."""
        return self.node, self._links_count

    async def start(self) -> None:
        """Connect. If Redis cannot be reached, return after the first attempt and keep trying."""
        tried = asyncio.Event()
        loop = asyncio.get_running_loop()
        # Until Redis has told its time, this one is certainly behind it.
        self._clock_offset_ms = (time.time() - MAX_CLOCK_SKEW_S - loop.time()) * 1000
        self._supervisor = loop.create_task(self._supervise(tried))
        await tried.wait()

    def stop(self, *, linger_s: float) -> None:
        """Say that the node stops.

        Parameters:
            linger_s: in how many seconds other nodes remove its users; 0 if it has none.
        """
        if self._link is not None:
            if linger_s:
                until_ms = (asyncio.get_running_loop().time() + linger_s) * 1000 + self._clock_offset_ms
                self._link.send("ZADD", self.keys.stopped, round(until_ms), self.node)
            self._link.send("ZREM", self.keys.leases, self.node)

    async def flush(self) -> None:
        """Say that the node stops. Wait until Redis has taken that, at most :data:`GOODBYE_TIMEOUT_S`."""
        if not self._is_ready or self._link is None:
            return
        try:
            # Its reply comes after all that was sent before it. Nobody asks this node any more.
            goodbye = self._link.call("HDEL", self.keys.links, self.node)
            await asyncio.wait_for(goodbye, GOODBYE_TIMEOUT_S)
        except (BrokerUnavailableError, asyncio.TimeoutError):
            logger.warning(
                line(
                    "shutdown not confirmed by Redis; users expire later",
                    timeout_s=self._node_timeout_s,
                )
            )

    async def close(self) -> None:
        """Disconnect. Nothing is received afterwards."""
        # Before Python 3.12, asyncio.wait_for may lose a cancellation, such as when a connection is refused.
        self._is_closing = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._connections.close()

    async def _supervise(self, tried: asyncio.Event) -> None:
        wait_s = FIRST_RECONNECT_WAIT_S
        was_logged = False
        while not self._is_closing:
            link = Link(self._connections.make(), self._connections.make(), self._receive)
            try:
                await self._open(link)
                if was_logged:
                    logger.warning("Redis is back")
                was_logged, wait_s = False, FIRST_RECONNECT_WAIT_S
                self._is_ready = True
                tried.set()
                await self._keep(link)
            except (RedisError, OSError, asyncio.TimeoutError, BrokerUnavailableError) as error:
                cause = link.failed.result() if link.failed.done() else error
                if not was_logged:
                    reason = str(cause) or repr(cause)
                    logger.warning(line("Redis cannot be reached, trying again", reason=reason))
                was_logged = True
            except Exception:
                logger.exception(line("link to Redis failed, trying again"))
            finally:
                self._is_ready = False
                self._link = None
                for part in self.parts:
                    part.unlink()
                closing = asyncio.get_running_loop().create_task(link.close())
                try:
                    await asyncio.shield(closing)
                except asyncio.CancelledError:
                    await closing  # an open connection could keep uvloop from ending
                    raise
            tried.set()
            if not self._is_closing:
                await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_RECONNECT_WAIT_S, self._node_timeout_s * _RENEWAL)

    async def _open(self, link: Link) -> None:
        """Connect, and catch up with missed events."""
        await link.open()
        self._links_count += 1
        self._link_name = f"{self.node} {self._links_count} ".encode() + self.keys.links
        self.before_open()
        await asyncio.gather(*(link.call("SCRIPT", "LOAD", script.text) for script in scripts.ALL))
        await asyncio.gather(link.subscribe(self.node_key), link.subscribe(self.keys.nodes))
        before = self._leased_until_ms
        in_doubt = await self._take_lease(link, scripts.ENTER) < before
        self._link = link
        for part in self.parts:
            await part.catch_up(link, in_doubt=in_doubt)

    async def _keep(self, link: Link) -> None:
        """Renew the lease until the link fails."""
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        while not self._is_closing:
            await asyncio.wait([link.failed], timeout=self._node_timeout_s * _RENEWAL)
            await self._take_lease(link, scripts.LEASE)
            # When Redis comes back all leases may have ended; living nodes need time to renew theirs.
            if loop.time() - opened_at < self._node_timeout_s * _LEASE:
                continue
            for part in self.parts:
                await part.maintain(link)

    async def _take_lease(self, link: Link, script: scripts.Script) -> int:
        """Returns the end of the lease before, in milliseconds since 1970; 0 if there was none."""
        head, reached = link.ask(self._reach)
        command = self._lease_command(script, head)
        lease_ms = round(self._node_timeout_s * _LEASE * 1000)
        before, until_ms, process, name, is_proven, evicts = await link.call(*command)
        self._leased_until_ms = int(until_ms)
        self._clock_offset_ms = int(until_ms) - lease_ms - asyncio.get_running_loop().time() * 1000
        await reached
        if script is scripts.ENTER:
            self.epoch.enter(process, name, is_proven=bool(is_proven))
            if evicts:
                advice = "set maxmemory-policy to noeviction"
                logger.warning(line("Redis may evict messages: no replay is complete", advice=advice))
        if self._news is not None:
            self._hear(link, self._news)
        return int(before or 0)

    def _lease_command(self, script: scripts.Script, head: bytes) -> tuple[Any, ...]:
        keys, epoch = self.keys, self.epoch
        arguments = round(self._node_timeout_s * _LEASE * 1000), self.node_key, head, keys.prefix
        new_epoch, proof_ms = secrets.token_hex(_EPOCH_BYTES), round(self._node_timeout_s * 1000)
        known = epoch.process, epoch.name, epoch.seen
        return script(*self.fence(), *arguments, new_epoch, *known, proof_ms, keys=(keys.links, keys.leases))

    def _reach(self, place: bytes) -> None:
        self._news = None  # the answer to the script says more than earlier news
        self.on_place(place)

    def _hear(self, link: Link, news: bytes) -> None:
        """Compare the epoch of Redis with the known one."""
        name, is_proven, place = news.split(b" ")
        if name == self.epoch.name:
            self.epoch.update(is_proven=is_proven == b"1")
            self.epoch.see(int(place))
        else:
            link.fail(BrokerUnavailableError("Redis lost messages", RETRY_AFTER_S))

    def _receive(self, channel: bytes, data: bytes) -> None:
        if channel == self.keys.nodes:
            self._news = data
            if self._link is not None:
                self._hear(self._link, data)
            return
        for part in self.parts:
            if part.receive(channel, data):
                return


class _Connections:
    """Makes connections to a Redis, at a fixed address or the one that the Sentinels name."""

    def __init__(self, url: RedisUrl) -> None:
        # The link has its own timeout, and the supervisor opens another when it fails.
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
            self.make: Callable[[], RedisConnection] = partial(connection, host=host, port=port, **settings)
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
        self.make = pool.make_connection

    async def close(self) -> None:
        for sentinel in self._sentinels:
            await sentinel.aclose()
