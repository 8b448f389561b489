"""The console in a cluster of two nodes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import tambur as package
from tambur.server import Config, in_background
from tambur.server.broker import AppKey, BrokerUnavailableError
from tambur.server.broker.memory import MemoryBackend, NoOtherNodes
from tambur.server.cluster import Cluster
from tambur.server.console.feed import Feed
from tambur.server.console.nodes import Nodes
from tambur.server.console.watch import Refusal

from ...support.app import APP
from ...support.console import Viewer, console
from ...support.redis_server import RedisServer


def test_all_nodes_of_the_cluster_are_shown(redis_server: RedisServer) -> None:
    broker = redis_server.url(7)
    with (
        in_background(Config(apps=(APP,), port=0, broker=broker)) as other,
        console(broker=broker) as server,
        contextlib.closing(Viewer(f"{server.console_url}/events")) as viewer,
    ):
        nodes: list[dict[str, Any]] = []
        while [node["health"] for node in nodes] != [None, None]:  # one may not answer in time
            nodes = viewer.read("nodes")
        assert [node["version"] for node in nodes] == [package.__version__] * 2
        ports = [url.rpartition(":")[2] for url in (server.url, other.url)]
        assert [node["node"].partition(",")[0].rpartition(":")[2] for node in nodes] == ports
        assert "samples" not in nodes[1]  # it has no console


class OneOtherNode(NoOtherNodes):
    """Calls to another node of the same process, which may be silent."""

    def __init__(self, other: Cluster) -> None:
        self._other = other
        self.is_silent = False

    async def ask_each(
        self,
        question: bytes,
        *,
        timeout_s: float,
    ) -> dict[str, bytes | BrokerUnavailableError]:
        silent = BrokerUnavailableError("the node of this subscriber did not answer", 1)
        return {"b": silent if self.is_silent else await self._other.answer(question)}


def test_a_node_that_does_not_answer_keeps_its_name() -> None:
    async def scenario() -> None:
        backend, app, other = MemoryBackend(max_claims=1), AppKey("key", "app"), Cluster(NoOtherNodes())
        calls = OneOtherNode(other)
        nodes, there = Nodes(backend, Cluster(calls), 1), Nodes(backend, other, 2)
        assert [node["node"] for node in await nodes.all(app, {})] == [nodes.name, there.name]
        calls.is_silent = True
        _, silent = await nodes.all(app, {})
        assert (silent["node"], silent["health"]) == (there.name, "does not answer")
        never_seen = Nodes(backend, Cluster(calls), 1)
        assert (await never_seen.all(app, {}))[1]["node"] == "b"

    asyncio.run(scenario())


def test_each_sample_and_refusal_of_another_node_comes_once_and_by_this_nodes_clock() -> None:
    async def scenario() -> None:
        backend, app, other = MemoryBackend(max_claims=1), AppKey("key", "app"), Cluster(NoOtherNodes())
        clocks = [1000.0, 998.5]
        nodes = Nodes(backend, Cluster(OneOtherNode(other)), 1, lambda: clocks[0])
        far = Nodes(backend, other, 2, lambda: clocks[1])
        far.feeds = {"samples": Feed(10), "refusals": Feed(10)}
        far.feeds["refusals"].add(Refusal(998.0, "publish refused", {"status": "401"}))
        seen: dict[str, dict[str, int]] = {}
        shown: dict[str, list[Any]] = {"samples": [], "refusals": []}
        for clocks[:] in ([1000.0, 998.5], [1002.0, 1031.5], [1004.0, 1032.5], [1006.0, 1006.0]):
            far.feeds["samples"].add([clocks[1], "x"])
            answer = (await nodes.all(app, seen))[1]
            for name, items in shown.items():
                items.extend(answer[name])
        # Up to an interval of difference is left alone.
        assert shown["samples"] == [[998.5, "x"], [1001.5, "x"], [1002.5, "x"], [1006.0, "x"]]
        assert shown["refusals"] == [[998.0, "publish refused", {"status": "401"}]]
        # Another viewer gets everything.
        assert len((await nodes.all(app, {}))[1]["samples"]) == 4

    asyncio.run(scenario())


def test_a_node_without_a_broker_says_so() -> None:
    class Cut(NoOtherNodes):
        async def ask_each(
            self,
            question: bytes,
            *,
            timeout_s: float,
        ) -> dict[str, bytes | BrokerUnavailableError]:
            raise BrokerUnavailableError("Redis cannot be reached", 1)

    async def scenario() -> None:
        nodes = Nodes(MemoryBackend(max_claims=1), Cluster(Cut()), 1)
        _, others = await nodes.all(AppKey("key", "app"), {})
        assert (others["node"], others["health"]) == ("other nodes", "Redis cannot be reached")

    asyncio.run(scenario())
