"""The memory of Redis for clients that lost their connection, as one node uses it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ...config import App
from ...history import Budgets, History
from .. import AppKey, BrokerUnavailableError, Publication, direct_log, private_log
from . import scripts
from .calls import RedisNodeCalls
from .filing import refile
from .keys import log_of, scope
from .link import RETRY_AFTER_S, Link
from .logs import NO_PLACE, Log, LogReader, Part, parse_part
from .owners import TELL_SHARE, Owners, batches
from .rules import Rules
from .shard import NodePart, Shard

PROOF_WAIT_S = 2.0
"""How long a client that comes back waits until the epoch is proven, in seconds."""


class RedisRecovery(NodePart):
    """The logs in Redis, and a copy of the newest part of some: the tails.

    A tail has what arrived since the node subscribed to its stream, and what was read of the time before.

    Parameters:
        shard: the Redis.
        reader: reads the logs.
        rules: how much of each log is kept.
        apps: apps with their own rules for history.
        calls: reach the other nodes.

    Attributes:
        place: up to here, the node has received everything on all its channels.
        owners: the sessions that were resumed on this node.
    """

    realm = b"redis"

    def __init__(
        self, shard: Shard, reader: LogReader, rules: Rules, apps: Sequence[App], calls: RedisNodeCalls
    ) -> None:
        self._shard = shard
        self._reader = reader
        self._rules = rules
        self._calls = calls
        self.owners = Owners(shard, calls, session_ttl_s=rules.limits.session_ttl_s)
        self._apps = apps
        self._tails = self._no_tails()
        # The tails that have begun, each with the history that holds it.
        self._begun: dict[tuple[AppKey, str], History] = {}
        self._loading: dict[Log, asyncio.Task[None]] = {}
        self._needs: Counter[Log] = Counter()
        self._sync: tuple[Link, int, asyncio.Future[int]] | None = None
        self._is_refiled = False
        self._tell_at = 0.0
        self._cursors: dict[AppKey, bytes] = {}
        self.place = 0
        # The logs that were delivered further than that, while others are not: the node catches up.
        self.ahead: dict[Log, int] = {}
        self._place_epoch = b""

    @property
    def is_same_epoch(self) -> bool:
        """Whether the place belongs to the epoch that the node has entered."""
        return self._place_epoch == self._shard.epoch.name

    @property
    def epoch(self) -> bytes:
        """The name of the epoch.

        Raises:
            BrokerUnavailableError: the node has not reached Redis yet.
        """
        if not self._shard.epoch.name:
            raise BrokerUnavailableError("the broker cannot be reached", RETRY_AFTER_S)
        return self._shard.epoch.name

    # What arrives

    def reached(self, app: AppKey, log: str) -> int:
        return max(self.place, self.ahead.get(Log(app, log), 0)) if self.ahead else self.place

    def reach(self, place: int) -> None:
        """Note that the node has received everything up to a place."""
        self.place = max(self.place, place)
        self._shard.epoch.see(place)

    def append(self, publication: Publication) -> None:
        """Note a message that is delivered now."""
        name = log_of(publication)
        tail = self._begun.get((publication.app, name))
        if tail is not None:
            tail.append(name, publication)

    # Tails

    def _no_tails(self) -> Budgets:
        return Budgets(self._apps, self._rules.limits, floor=NO_PLACE)

    def begin_tail(self, log: Log, place: int) -> None:
        """Begin a tail: the node receives all messages of the log after a place."""
        self._drop(log)
        tail = self._begun[log] = self._tails.holding(*log)
        tail.begin(log.name, place)

    def _drop(self, log: Log) -> None:
        tail = self._begun.pop(log, None)
        if tail is not None:
            tail.drop(log.name)

    def restart(self, log: Log, place: int) -> None:
        """Begin a tail again, if there is one: messages before a place were missed."""
        if log in self._begun:
            self.begin_tail(log, place)

    def retain(self, logs: Collection[Log]) -> None:
        """Drop all other tails: what they missed will not be read."""
        for log in [log for log in self._begun if log not in logs]:
            self._drop(Log(*log))

    def reset(self, streams: Iterable[Log], place: int) -> None:
        """Drop all tails, since a new epoch has begun. Those of streams begin again at a place."""
        self._tails = self._no_tails()
        self._begun.clear()
        self.ahead.clear()
        self.place = place
        self._place_epoch = self._shard.epoch.name
        self._shard.epoch.see(place)
        for stream in streams:
            self.begin_tail(stream, place)

    async def begin(self, link: Link, log: Log) -> None:
        """Begin the tail of a stream that was just subscribed to, and need it."""
        self._needs[log] += 1
        try:
            await self.mark(link, lambda last: self.begin_tail(log, last), log)
        except BrokerUnavailableError:
            self._end_need(log)
            raise

    def end(self, log: Log) -> None:
        """Undo :meth:`begin`."""
        self._end_need(log)
        self._drop(log)

    async def sync(self) -> None:
        """Return once everything that was published before has been delivered to this node."""
        link = self._shard.ready_link()
        if self._sync is None or self._sync[:2] != (link, link.batch):
            self._sync = link, link.batch, self.mark(link)
        await asyncio.shield(self._sync[2])  # those that leave together share one

    def mark(
        self, link: Link, on_last: Callable[[int], None] = lambda _: None, *needed: Log
    ) -> asyncio.Future[int]:
        """Say that logs are needed; the result is the last place. The link need not be ready yet.

        Parameters:
            on_last: called with the place, in its turn among the messages.
        """
        head, reached = self._shard.ask_place(link, on_last)
        link.send(*self._need_command(head, needed, self._need_s))
        return reached

    async def load(self, app: AppKey, log: str, place: int | None, user_id: str | None = None) -> None:
        if place is not None:
            await self._shard.epoch.wait_for_proof(PROOF_WAIT_S)
            if place > self.reached(app, log):  # the client comes from a node that was faster
                await self.sync()
        await self._load(Log(app, log), place)
        if user_id is not None:
            await self._load(Log(app, direct_log(log, user_id)), place)

    async def _load(self, log: Log, place: int | None) -> None:
        for _ in range(2):  # a read for another client may not have gone back as far
            tail = self._tails.holding(*log)
            if tail.is_whole(log.name) or (place is not None and place >= tail.floor(log.name)):
                return
            loading = self._loading.get(log)
            if loading is None:
                task = asyncio.get_running_loop().create_task(self._read(log, place or 0))
                loading = self._loading[log] = task
                task.add_done_callback(lambda _: self._loading.pop(log))
            # Shielded: if this client is cancelled, the others that wait for the log are not.
            await asyncio.shield(loading)

    async def _read(self, log: Log, place: int) -> None:
        """Read a log backwards into its tail, down to a place; the last part may go further."""
        link, tail, name = self._shard.ready_link(), self._tails.holding(*log), log.name

        def begin(last: int) -> None:
            if log not in self._begun:
                self.begin_tail(log, last)

        upper = tail.floor(name)
        while not tail.is_whole(name) and tail.floor(name) > place:
            read = await self._reader.read(link, [(log, 0, upper)], begin)
            part = read.parts[log]
            if part is None or not self._extend(log, part, min(upper, read.last)):
                return  # the session moved, or the tail has lost the end of what was read
            upper = part.floor

    def _extend(self, log: Log, part: Part, upper: int) -> bool:
        """Put entries up to a place before those of a tail; returns whether they meet."""
        tail, name = self._tails.holding(*log), log.name
        floor = tail.floor(name)
        if name not in tail or not part.floor <= floor <= upper:
            return False
        older = [publication for publication in part.newest_first if publication.place <= floor]
        tail.extend(name, older[::-1], part.floor, is_whole=part.is_whole)
        return True

    def since(
        self, app: AppKey, log: str, place: int, user_id: str | None = None
    ) -> Sequence[Publication] | None:
        if not self._shard.epoch.is_proven:
            return None
        found = self._since(app, log, place)
        if user_id is None or found is None:
            return found
        direct = self._since(app, direct_log(log, user_id), place)
        if direct is None:
            return None
        return list(heapq.merge(found, direct, key=lambda publication: publication.place))

    def _since(self, app: AppKey, log: str, place: int) -> Sequence[Publication] | None:
        return self._tails.holding(app, log).since(log, place, self._now())

    def newest_first(self, app: AppKey, stream: str) -> Iterator[Publication]:
        return self._tails.of(app, stream).newest_first(stream, self._now())

    async def count_kept(self, app: AppKey, streams: Sequence[str]) -> Sequence[int]:
        link = self._shard.ready_link()
        counting = (link.call("LLEN", self._shard.keys.log(app, stream)) for stream in streams)
        counts: list[int] = await asyncio.gather(*counting)
        return counts

    def _now(self) -> int:
        return max(self.place, self._shard.now_us())

    # Floors

    def need(self, app: AppKey, log: str, user_id: str | None = None) -> None:
        name = Log(app, log if user_id is None else direct_log(log, user_id))
        self._needs[name] += 1
        if self._needs[name] == 1:
            self._say([name], self._need_s)

    def release(self, app: AppKey, log: str, user_id: str | None = None) -> None:
        name = Log(app, log if user_id is None else direct_log(log, user_id))
        self._end_need(name)
        if name not in self._needs:
            self._drop(name)
            self.owners.release(name)

    def _end_need(self, log: Log) -> None:
        self._needs[log] -= 1
        if not self._needs[log]:
            del self._needs[log]
            self._say([log], 0)

    @property
    def _need_s(self) -> int:
        return round(2 * self._rules.limits.position_ttl_s / TELL_SHARE) + 1

    def _say(self, logs: Sequence[Log], seconds: int) -> None:
        """Tell Redis for how long the floors of some logs are needed. The next link repeats it."""
        if self._shard.link is not None:
            self._shard.link.send(*self._need_command(b"", logs, seconds))

    def _need_command(self, head: bytes, logs: Sequence[Log], seconds: int) -> tuple[Any, ...]:
        shard = self._shard
        names = itertools.chain.from_iterable((scope(app), name) for app, name in logs)
        return scripts.NEED(
            shard.keys.prefix, shard.node_key, head, seconds, self._rules.max_floors, *names, keys=()
        )

    async def resume(self, app: AppKey, subscriber_id: str, number: int, place: int | None = None) -> int:
        shard, link = self._shard, self._shard.ready_link()
        log = Log(app, private_log(subscriber_id))
        # A tail from before may lack what another node received meanwhile: it begins anew.
        head, reached = shard.ask_place(link, partial(self.begin_tail, log))
        self._needs[log] += 1
        is_done = False
        try:
            kept_us = self._rules.of(*log).ttl
            needing = self._need_s, self._rules.max_floors
            reading = (
                shard.node_key,
                head,
                *needing,
                shard.epoch.name,
                kept_us,
                "" if place is None else place,
            )
            resumes, found = await self.owners.resume(link, log, number, reading)
            if resumes:
                last = await reached
                if found:
                    self._extend(log, parse_part(log, found), last)
                is_done = True
        finally:
            if not is_done:
                link.forget(head)
                self.release(app, log.name)
        return resumes

    # Callbacks of the link

    async def catch_up(self, link: Link, *, in_doubt: bool) -> None:  # noqa: ARG002
        """Say again which logs are needed: Redis may have forgotten."""
        await self._tell(link)
        if not self._is_refiled:  # the configuration may have changed before this node started
            await refile(link, self._shard.keys, self._rules)
            self._is_refiled = True

    async def maintain(self, link: Link) -> None:
        """Drop what has expired. From time to time, say which logs are needed."""
        limits = self._rules.limits
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            self._tell_at = now + min(limits.position_ttl_s, limits.session_ttl_s) / TELL_SHARE
            await self._tell(link)
            for log in await self.owners.confirm(link):
                self._calls.moved(log.app, log.name.removeprefix("private:"))
        for app in self._rules.apps:
            budgets = [part for rule in self._rules.budgets(app) for part in (rule.budget, rule.ttl)]
            arguments = (
                self._shard.keys.prefix,
                scope(app),
                round(limits.position_ttl_s),
                self._rules.max_floors,
            )
            is_more = True
            while is_more:
                command = scripts.TEND(*arguments, self._cursors.get(app, b"0"), *budgets, keys=())
                self._cursors[app], is_more = await link.call(*command)

    async def _tell(self, link: Link) -> None:
        # One command after another: publishes leave in between. Some needs may end meanwhile.
        for logs in batches(list(self._needs)):
            still = [log for log in logs if log in self._needs]
            await link.call(*self._need_command(b"", still, self._need_s))
