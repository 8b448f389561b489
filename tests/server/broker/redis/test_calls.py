"""One node asks all others over a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tambur.server.broker import BrokerUnavailableError
from tests.support import redis_nodes
from tests.support.broker import RecordingBackend
from tests.support.redis_nodes import end_lease, shard
from tests.support.redis_server import RedisServer


class Hanging:
    """The question that no node answers before a test lets it."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.has_ended = asyncio.Event()


@pytest.fixture(autouse=True)
def empty(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHDB")


def run(
    redis: RedisServer,
    count: int,
    scenario: Callable[..., Awaitable[None]],
    *,
    hanging: Hanging | None = None,
) -> None:
    """Run a scenario of nodes, each of which answers with its number and the question."""
    hanging = hanging or Hanging()

    async def answer(number: int, question: bytes) -> bytes:
        if question == b"hang":
            await hanging.may_end.wait()
            hanging.has_ended.set()
        return b"%d %s" % (number, question)

    redis_nodes.run(redis, count, scenario, answer=answer)


async def ask_all(node: RecordingBackend, question: bytes = b"?", timeout_s: float = 60) -> list[bytes]:
    """The answers of all other nodes; raises the error of the first one that has not answered."""
    answers = []
    for answer in (await node.calls.ask_each(question, timeout_s=timeout_s)).values():
        if isinstance(answer, BrokerUnavailableError):
            raise answer
        answers.append(answer)
    return sorted(answers)


async def ask_until_answered(node: RecordingBackend) -> list[bytes]:
    while True:
        try:
            return await ask_all(node)
        except BrokerUnavailableError:
            await asyncio.sleep(0.01)


def test_all_other_nodes_answer(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, _: RecordingBackend, __: RecordingBackend) -> None:
        assert await ask_all(one) == [b"1 ?", b"2 ?"]

    run(redis_server, 3, scenario)


def test_a_single_node_has_nobody_to_ask(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend) -> None:
        assert await ask_all(one) == []

    run(redis_server, 1, scenario)


def test_a_node_that_does_not_answer_in_time_makes_the_call_fail(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, _: RecordingBackend) -> None:
        with pytest.raises(BrokerUnavailableError, match="did not answer"):
            await ask_all(one, b"hang", 0.05)
        assert await ask_all(one) == [b"1 ?"]
        # The node does what it was asked for nevertheless.
        assert not hanging.has_ended.is_set()
        hanging.may_end.set()
        await hanging.has_ended.wait()

    hanging = Hanging()
    run(redis_server, 2, scenario, hanging=hanging)


def test_a_stopped_node_is_not_asked(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend, _: RecordingBackend) -> None:
        await two.backend.close()
        assert await ask_all(one) == [b"2 ?"]

    run(redis_server, 3, scenario)


def test_a_killed_node_is_asked_until_its_lease_ends(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, two: RecordingBackend) -> None:
        supervisor = shard(two)._supervisor
        assert supervisor is not None
        supervisor.cancel()
        await asyncio.wait([supervisor])
        with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
            await ask_all(one)
        end_lease(redis_server, two)
        assert await ask_all(one) == []

    run(redis_server, 2, scenario)


def test_a_node_without_redis_asks_nobody(redis_server: RedisServer) -> None:
    async def scenario(one: RecordingBackend, _: RecordingBackend) -> None:
        link = shard(one).link
        assert link is not None
        link.fail(OSError("cut"))
        with pytest.raises(BrokerUnavailableError, match="the broker cannot be reached"):
            await ask_all(one)
        assert await ask_until_answered(one) == [b"1 ?"]

    run(redis_server, 2, scenario)
