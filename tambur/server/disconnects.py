"""Ends the sessions of subscribers and users on all nodes: section 9 of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from ..protocol import close_codes
from .broker import AppKey, Backend
from .cluster import Cluster
from .config import App
from .extended_hub import ExtendedHub
from .extension import now_ms
from .outbox import Outbox
from .revocations import DISCONNECTED

CLOSED_PER_TURN = 32
"""How many connections are closed in one turn of the event loop."""

TICK_S = 0.001
"""How long to wait before looking at the clock again, in seconds."""


class Disconnects:
    """The disconnects of apps, on this node.

    Parameters:
        backend: remembers who was revoked.
        hub: has the connections and the lost sessions of this node.
        cluster: the other nodes.
    """

    def __init__(self, backend: Backend, hub: ExtendedHub, cluster: Cluster) -> None:
        self._backend = backend
        self._hub = hub
        self._cluster = cluster
        self._tasks: set[asyncio.Task[set[str]]] = set()
        cluster.answers["disconnect"] = self._answer

    async def disconnect(self, app: App, *, subscriber_id: str | None, user_id: str | None) -> int:
        """End the sessions of a subscriber or of a user for good.

        Parameters:
            subscriber_id: the subscriber; ``None`` for a user.
            user_id: the user; ``None`` for a subscriber.

        Returns:
            How many connections and lost sessions were ended.

        Raises:
            BrokerUnavailableError: a node has not answered. The others have ended theirs.
        """
        self._hub.revocations.require_room(app.key, self._hub.clock_ms())
        wanted = [] if subscriber_id is None else [subscriber_id]
        revoked_ms = await self._backend.revocations.revoke(app.key, wanted, user_id)
        ended = await self._everywhere(app.key, wanted, user_id, revoked_ms)
        if user_id is not None and ended:
            # A session that one node knew as lost may have been resumed on another meanwhile.
            await self._everywhere(app.key, sorted(ended), None, revoked_ms)
        return len(ended)

    async def _everywhere(
        self, app: AppKey, subscriber_ids: list[str], user_id: str | None, revoked_ms: int
    ) -> set[str]:
        """End sessions on all nodes; return their subscriber IDs."""
        asking = self._cluster.ask_all("disconnect", app, subscriber_ids, user_id, revoked_ms)
        others = asyncio.ensure_future(asking)
        here = asyncio.ensure_future(self._answer(app, subscriber_ids, user_id, revoked_ms))
        await asyncio.gather(here, others, return_exceptions=True)  # neither ends the other
        return set(here.result()).union(*others.result())

    async def _answer(
        self, app: AppKey, subscriber_ids: list[str], user_id: str | None, revoked_ms: int
    ) -> list[str]:
        """End sessions on this node; return their subscriber IDs."""
        work = self._end(app, subscriber_ids, {} if user_id is None else {user_id: revoked_ms})
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Shielded: if the link fails, the answer is not wanted any more, but the work must be finished.
        ended = await asyncio.shield(task)
        # Sessions that begin after the answer have a later time.
        while self._hub.clock_ms() <= revoked_ms:  # noqa: ASYNC110 - a clock has no event
            await asyncio.sleep(TICK_S)
        return sorted(ended)

    async def catch_up(
        self, app: AppKey, subscriber_ids: Mapping[str, int], users: Mapping[str, int]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """End the sessions of which this node has not heard.

        Parameters:
            subscriber_ids: those that are remembered, with their times in milliseconds since 1970.
            users: those that are remembered, with their times.

        Returns:
            The subscriber IDs and the users that only this node remembers, with their times.
        """
        revocations = self._hub.revocations
        ids_before, users_before = revocations.all(app, self._hub.clock_ms())
        new_ids = [each for each in subscriber_ids if each not in ids_before]
        new_users = {each: at_ms for each, at_ms in users.items() if users_before.get(each, 0) < at_ms}
        await self._end(app, new_ids, new_users)
        return (
            {each: ids_before[each] for each in ids_before.keys() - subscriber_ids.keys()},
            {each: users_before[each] for each in users_before.keys() - users.keys()},
        )

    async def _end(self, app: AppKey, subscriber_ids: Iterable[str], users: Mapping[str, int]) -> set[str]:
        """End sessions on this node, those of users with the times of their disconnects.

        Returns:
            Their subscriber IDs.
        """
        hub = self._hub
        for user_id, revoked_ms in users.items():
            hub.revocations.revoke_user(app, user_id, revoked_ms)
        found: set[str] = set()
        if users:  # looking through all sessions takes milliseconds
            found = {*hub.subscribers_as(app, users), *hub.lost_sessions.of_users(app, users)}
        ended: set[str] = set()
        lingering: set[str] = set()
        closing: list[Outbox] = []
        for each in (*subscriber_ids, *found):
            hub.end_session(app, each)
            if (outbox := hub.outbox(app, each)) is not None:
                closing.append(outbox)
                ended.add(each)
            if (lost := hub.lost_sessions.remove(app, each, now_ms())) is not None:
                lingering.add(lost.connection_id)
                ended.add(each)
        try:
            if found:  # before the clients come back, maybe to another node
                await self._backend.revocations.revoke(app, found, None)
        finally:
            await self._close(closing)
            if lingering:
                self._backend.presence.end_lingering(app, lingering)
        return ended

    async def _close(self, outboxes: Iterable[Outbox]) -> None:
        for number, outbox in enumerate(outboxes, 1):
            outbox.close(close_codes.DISCONNECTED, DISCONNECTED)
            if number % CLOSED_PER_TURN == 0:
                await asyncio.sleep(0)
