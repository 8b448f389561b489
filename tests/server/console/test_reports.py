"""Reports of other nodes about the publications of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from tambur.protocol.messages import encode_message
from tambur.protocol.names import Kind
from tambur.server import Config, in_background
from tambur.server.broker import AppKey, Publication
from tambur.server.broker.memory import MemoryBackend, NoOtherNodes
from tambur.server.cluster import QUESTION, Cluster
from tambur.server.console.nodes import Nodes
from tambur.server.console.reports import LEASE_S, Reports
from tambur.server.console.watch import MAX_TRACES, Watch
from tambur.server.counters import Counts
from tambur.server.stream import Stream

from ...support.app import API_KEY, APP, APP_ID, publisher, subscriber
from ...support.console import Viewer, console
from ...support.node import Node, pass_time, run
from ...support.redis_server import RedisServer


def test_a_trace_names_the_nodes_that_accepted_a_message_and_that_had_it(
    redis_server: RedisServer, stream: str
) -> None:
    broker = redis_server.url(7)
    with (
        in_background(Config(apps=(APP,), port=0, broker=broker)) as other,
        console(broker=broker) as server,
        publisher(server) as here,
        publisher(other) as there,
        subscriber(server, stream),
        subscriber(other, stream),
        subscriber(other, stream),
        contextlib.closing(
            Viewer(f"{server.console_url}/follow?app={API_KEY}/{APP_ID}&stream={stream}")
        ) as viewer,
    ):
        ((port, nothing),) = [
            (report["node"].partition(",")[0].rpartition(":")[2], report["publications"])
            for report in viewer.read("reports")  # from now on the other node traces the stream
        ]
        assert (port, nothing) == (other.url.rpartition(":")[2], [])
        here.publish(stream, "from here")
        there.publish(stream, "from there")
        here.publish_many([(stream, "in a batch")])
        own: dict[str, dict[str, Any]] = {}
        reported: dict[str, dict[str, Any]] = {}
        found: dict[str, dict[str, Any]] = {}
        while len(own) < 3 or len(found) < 3 or not all(p["claimed"] for p in found.values()):
            # Both nodes report each publication by the same key.
            data = viewer.read("publications", "reports")
            if data and "text" in data[0]:
                own |= {p["key"]: p for p in data if p["write_ms"] is not None}
            else:
                reported = {p["key"]: p for report in data for p in report["publications"]}
            pairs = {key: (p, reported[key]) for key, p in own.items() if key in reported}
            found = {
                key: {"text": a["text"], "claimed": a["claimed"] or b["claimed"], "here": a, "there": b}
                for key, (a, b) in pairs.items()
                if b["write_ms"] is not None
            }
        shown = {p["text"]: (p["here"], p["there"]) for p in found.values()}
        one, two = shown["from here"]
        assert (one["claimed"], one["nodes"], one["subscribers"]) == (True, 2, 1)
        assert (two["claimed"], two["nodes"], two["subscribers"]) == (False, None, 2)
        one, two = shown["from there"]
        assert (one["claimed"], one["nodes"], one["check_ms"], one["subscribers"]) == (False, None, None, 1)
        assert (two["claimed"], two["nodes"], two["subscribers"]) == (True, 2, 2)
        assert two["check_ms"] > 0
        assert shown["in a batch"][0]["claimed"]


PUBLICATION = Publication(
    AppKey("key", "app"), Kind.PUBLIC, "s", encode_message(Kind.PUBLIC, "s", "x"), place=7
)


async def asked(cluster: Cluster, stream: str = "s") -> Any:
    """Ask a node about a stream, as another node does."""
    return json.loads(await cluster.answer(QUESTION + json.dumps(["trace", "key", "app", stream]).encode()))


def test_a_node_traces_a_stream_only_while_it_is_asked() -> None:
    async def scenario(_: Node) -> None:
        counts, cluster = Counts(), Cluster(NoOtherNodes())
        watch = Watch(counts)
        nodes = Nodes(MemoryBackend(max_claims=1), cluster, 1)
        Reports(nodes, cluster, watch)
        assert counts.observer is None
        assert await asked(cluster) == {"node": nodes.name, "publications": []}
        assert counts.observer is watch
        watch.delivering(PUBLICATION, Stream(counts))
        ((report,),) = [(await asked(cluster))["publications"]]
        assert (report["key"], report["subscribers"], report["claimed"]) == ("7", 0, False)
        assert "x" not in report.values()  # the asking node has the text itself
        await pass_time(LEASE_S - 1)
        assert watch.is_tracing
        await pass_time(2)
        assert not watch.is_tracing
        assert counts.observer is None
        assert (await asked(cluster))["publications"] == []

    run(scenario)


def test_a_node_that_traces_too_many_streams_says_so() -> None:
    async def scenario() -> None:
        cluster = Cluster(NoOtherNodes())
        nodes = Nodes(MemoryBackend(max_claims=1), cluster, 1)
        Reports(nodes, cluster, Watch(Counts()))
        for number in range(MAX_TRACES):
            assert "failed" not in await asked(cluster, str(number))
        refused = {"node": nodes.name, "failed": f"{MAX_TRACES} streams are followed already"}
        assert await asked(cluster) == refused
        assert "failed" not in await asked(cluster, "0")

    asyncio.run(scenario())
