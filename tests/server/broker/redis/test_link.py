"""A link to Redis that fails."""

from __future__ import annotations

import asyncio

import pytest

from tambur.server.broker import BrokerUnavailableError
from tests.support.broker import RecordingBackend
from tests.support.redis_nodes import ready, run, shard
from tests.support.redis_server import RedisServer

TIMEOUT_S = 60.0


def test_a_reply_that_cannot_be_taken_fails_the_link(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    def parse(_: bytes) -> None:
        raise KeyError("a mistake of the server")

    async def scenario(node: RecordingBackend) -> None:
        link = shard(node).ready_link()
        head, replied = link.ask(parse)
        link.send("PUBLISH", shard(node).node_key, head + b"x")
        with pytest.raises(BrokerUnavailableError):
            await asyncio.wait_for(replied, TIMEOUT_S)
        await ready(node)
        assert shard(node).ready_link() is not link, "the next one repairs the state"

    run(redis_server, 1, scenario)
    assert "a mistake of the server" in caplog.text
