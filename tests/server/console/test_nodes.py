"""The console in a cluster of two nodes."""

from __future__ import annotations

import contextlib
from typing import Any

import tambur as package
from tambur.server import Config, in_background

from ...support.app import API_KEY, APP, APP_ID, publisher, subscriber
from ...support.console import Viewer, console
from ...support.redis_server import RedisServer


def test_all_nodes_of_the_cluster_are_shown(redis_server: RedisServer) -> None:
    broker = redis_server.url(7)
    with (
        in_background(Config(apps=(APP,), port=0, broker=broker)) as other,
        console(broker=broker) as server,
        contextlib.closing(Viewer(f"{server.console_url}/events")) as viewer,
    ):
        nodes: list[dict[str, Any]] = viewer.read("nodes")
        assert [node["health"] for node in nodes] == [None, None]
        assert [node["version"] for node in nodes] == [package.__version__] * 2
        ports = [url.rpartition(":")[2] for url in (server.url, other.url)]
        assert [node["node"].partition(",")[0].rpartition(":")[2] for node in nodes] == ports


def test_a_trace_says_which_node_accepted_a_message_and_how_many_listened(
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
        assert viewer.read("publications") == []
        here.publish(stream, "from here")
        there.publish(stream, "from there")
        here.publish_many([(stream, "in a batch")])
        found: dict[int, dict[str, Any]] = {}
        while len(found) < 3 or any(p["write_ms"] is None for p in found.values()) or not found[2]["claimed"]:
            found |= {p["id"]: p for p in viewer.read("publications")}
        shown = [(p["text"], p["claimed"], p["nodes"], p["subscribers"]) for p in found.values()]
        assert shown[0] == ("from here", True, 2, 1)
        assert shown[1] == ("from there", False, None, 1)
        assert shown[2][:2] == ("in a batch", True)
