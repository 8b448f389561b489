"""A node tells Redis which logs it needs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tambur.server.broker.redis import owners, scripts
from tambur.server.broker.redis.backend import RedisBackend
from tests.support.broker import APP, NOW, RecordingBackend, claim, public
from tests.support.redis_nodes import run, shard
from tests.support.redis_server import RedisServer


def test_a_publish_does_not_wait_until_a_node_has_told_all_its_needs(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.cli("FLUSHDB")
    monkeypatch.setattr(owners, "NAMES_AT_ONCE", 1)
    sent: list[str] = []

    async def scenario(node: RecordingBackend) -> None:
        assert isinstance(node.backend, RedisBackend)
        recovery, link = node.backend.recovery, shard(node).ready_link()
        for i in range(50):
            recovery.need(APP, f"private:{i}")
        await node.broker.sync()
        write = link._commands.write

        def noting(*command: Any) -> None:
            sent.append(command[1])
            write(*command)

        monkeypatch.setattr(link._commands, "write", noting)
        maintaining = asyncio.ensure_future(recovery.maintain(link))
        await asyncio.sleep(0)
        await node.publish(public("s", "x"), claim("n"), now=NOW)
        await maintaining
        needs = [i for i, digest in enumerate(sent) if digest == scripts.NEED.digest]
        assert len(needs) == 50
        assert needs[0] < sent.index(scripts.PUBLISH.digest) < needs[-1]

    run(redis_server, 1, scenario)
