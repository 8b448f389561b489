"""Presence on the streams of a cluster: Redis holds the users, and each node mirrors them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from .. import AppKey, BrokerUnavailableError, Deliver, Entry, PresentUsers
from ..lingering import Lingering
from . import scripts
from .keys import encode_entry, scope
from .link import Link
from .mirror import PresenceMirror
from .shard import NodePart, Shard
from .webhooks import RedisWebhooks

MAX_SWEPT_AT_ONCE = 500
"""Users of a dead node that one script removes; everything else in Redis waits for it."""

SWEEP_INTERVAL_S = 1.0
"""How often a node looks for users of stopped nodes who no longer linger, in seconds."""


class RedisPresence(NodePart):
    """One node's part in presence.

    Parameters:
        shard: the Redis.
        streams: the app and the stream of each channel that the node is subscribed to.
        webhooks: the queues that scripts add events to.
        max_lingering_users: how many lost connections are still present at once.
    """

    def __init__(
        self,
        shard: Shard,
        streams: Mapping[bytes, tuple[AppKey, str]],
        webhooks: RedisWebhooks,
        *,
        max_lingering_users: int,
    ) -> None:
        self._shard = shard
        self._streams = streams
        self._webhooks = webhooks
        self._mirror = PresenceMirror()
        # Their streams may have no subscribers on this node, so they are not in the mirror.
        self._lingering = Lingering(self._end, max_users=max_lingering_users)
        # After Redis lost its data, other nodes may not have registered their users again yet.
        self._may_announce_downs = True
        self._sweeper: asyncio.Task[None] | None = None
        self.deliver: Deliver = lambda _: None

    async def join(self, app: AppKey, stream: str, user_id: str, subscriber_id: str) -> PresentUsers:
        link = self._shard.ready_link()
        entry = Entry(app, stream, user_id, subscriber_id)
        head, joined = link.ask(partial(self._on_joined, entry))
        self._send_join(link, entry, head)
        present: PresentUsers = await joined
        self._lingering.replace(app, stream, user_id)
        return present

    def leave(
        self, app: AppKey, stream: str, user_id: str, subscriber_id: str, *, linger_s: float = 0.0
    ) -> None:
        entry = Entry(app, stream, user_id, subscriber_id)
        if not self._mirror.remove(entry):
            return
        if linger_s:
            self._lingering.begin(entry, linger_s)
        else:
            self._end(entry)

    def _end(self, entry: Entry) -> None:
        # Without a link, dropping the entry suffices: the next link removes unknown entries.
        if self._shard.link is not None:
            self._send_leave(self._shard.link, encode_entry(entry))

    def end_lingering(self, app: AppKey, connection_ids: Collection[str]) -> None:
        self._lingering.end(app, connection_ids)

    async def users(self, app: AppKey, stream: str) -> Collection[str]:
        users = await self._shard.ready_link().call("HKEYS", self._shard.keys.present(app, stream))
        return [user_id.decode() for user_id in users]

    async def count_users(self, app: AppKey, streams: Sequence[str]) -> Sequence[int]:
        link, keys = self._shard.ready_link(), self._shard.keys
        calls = (link.call("HLEN", keys.present(app, stream)) for stream in streams)
        counts: list[int] = await asyncio.gather(*calls)
        return counts

    def leave_all(self) -> None:
        """Remove every local connection, since the node stops. Other nodes remove those that linger."""
        for entry in list(self._mirror):
            self.leave(*entry)
        self._shard.stop(linger_s=self._lingering.remaining_s if self._lingering else 0.0)

    # Callbacks of the link

    def receive(self, channel: bytes, data: bytes) -> bool:
        if channel not in self._streams:
            return False
        app, stream = self._streams[channel]
        head, _, user_id = data.partition(b"\n")
        up = {b"up": True, b"down": False}[head]
        event = self._mirror.event(app, stream, user_id.decode(), up=up)
        if event is not None:
            self.deliver(event)
        return True

    async def catch_up(self, link: Link, *, in_doubt: bool) -> None:
        if in_doubt:
            self._may_announce_downs = False
        held = set(await link.call("SMEMBERS", self._shard.node_key))
        wanted = {encode_entry(entry): entry for entry in (*self._mirror, *self._lingering)}
        for encoded in held - set(wanted):
            self._send_leave(link, encoded)
        for encoded in set(wanted) - held:
            self._send_join(link, wanted[encoded], b"")
        await self._compare(link)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_stopped(link))

    async def maintain(self, link: Link) -> None:
        """Announce users who left during an outage, and remove the users of dead nodes."""
        if not self._may_announce_downs:
            self._may_announce_downs = True
            await self._compare(link)
        while await self._sweep(link, self._shard.keys.leases):
            pass

    def unlink(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self, link: Link, ended: bytes) -> asyncio.Future[int]:
        """Remove users of a node that has ended; the result is whether there may be more.

        Parameters:
            ended: the key that says when nodes end: their leases, or those of stopped nodes.
        """
        arguments = self._shard.keys.prefix, MAX_SWEPT_AT_ONCE, *self._webhooks.expect_any()
        swept = link.call(*scripts.SWEEP(*arguments, keys=(self._shard.keys.links, ended)))
        swept.add_done_callback(self._on_swept)
        return swept

    def _on_swept(self, swept: asyncio.Future[int]) -> None:
        if not swept.cancelled() and swept.exception() is None and swept.result():
            self._webhooks.wake_all()

    async def _sweep_stopped(self, link: Link) -> None:
        """Remove the users of stopped nodes as soon as they no longer linger."""
        with contextlib.suppress(BrokerUnavailableError):
            while True:
                if not await self._sweep(link, self._shard.keys.stopped):
                    await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _compare(self, link: Link) -> None:
        """Compare the users of every stream with those in Redis, and announce the differences."""
        replies = []
        for app, stream in self._mirror.streams():
            head, replied = link.ask(partial(self._on_present, app, stream))
            keys = (self._shard.keys.present(app, stream),)
            link.send(*scripts.PRESENT(self._shard.node_key, head, keys=keys))
            replies.append(replied)
        await asyncio.gather(*replies)

    def _on_present(self, app: AppKey, stream: str, data: bytes) -> None:
        user_ids = data.decode().split("\n") if data else []
        for event in self._mirror.compare(app, stream, user_ids, downs=self._may_announce_downs):
            self.deliver(event)

    def _on_joined(self, entry: Entry, data: bytes) -> PresentUsers:
        self._mirror.add(entry)
        self._on_present(entry.app, entry.stream, data)
        return self._mirror.present(entry.app, entry.stream)

    def _send_join(self, link: Link, entry: Entry, reply_head: bytes) -> None:
        shard = self._shard
        keys = shard.keys.links, shard.node_key, shard.keys.present(entry.app, entry.stream)
        arguments = encode_entry(entry), shard.keys.prefix, shard.node_key, reply_head
        queues = self._webhooks.expect(scope(entry.app), is_up=True)
        link.send(*scripts.JOIN(*shard.fence(), *arguments, *queues, keys=keys))

    def _send_leave(self, link: Link, encoded: bytes) -> None:
        shard = self._shard
        keys = shard.keys.links, shard.node_key
        queues = self._webhooks.expect(encoded.partition(b":")[0].decode(), is_up=False)
        link.send(*scripts.LEAVE(*shard.fence(), encoded, shard.keys.prefix, *queues, keys=keys))
