"""Disconnects of which a node hears later, without a network."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tambur.protocol import close_codes
from tambur.server.broker import AppKey
from tambur.server.cluster import Cluster
from tambur.server.disconnects import Disconnects

from ..support.node import APP, Node, run, settle


def test_a_node_that_missed_many_disconnects_looks_for_all_users_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[set[str]] = []

    async def scenario(node: Node) -> None:
        subscribers_as = node.hub.subscribers_as

        def noting(app: AppKey, users: Collection[str]) -> set[str]:
            asked.append(set(users))
            return subscribers_as(app, users)

        monkeypatch.setattr(node.hub, "subscribers_as", noting)
        clients = [node.client(user, "s") for user in ("alice", "bob", "carol")]
        for client, mode in zip(clients, ("presence", "direct", "direct"), strict=True):
            client.enable(mode, "s", client.subscriber_id)
        await settle()
        disconnects = Disconnects(node.backend, node.hub, Cluster(node.backend.calls))
        now_ms = node.hub.clock_ms()
        missed = {f"user {i}": now_ms for i in range(1000)} | {"alice": now_ms, "bob": now_ms}
        assert await disconnects.catch_up(APP.key, {}, missed) == ({}, {})
        codes = [client.seen.closed and client.seen.closed[0] for client in clients]
        assert codes == [close_codes.DISCONNECTED, close_codes.DISCONNECTED, None]
        assert asked == [set(missed)]

    run(scenario)
