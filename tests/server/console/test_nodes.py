"""The nodes that the console shows."""

from __future__ import annotations

import contextlib
from typing import Any

import tambur
from tambur.server import Config, in_background

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
        nodes: list[dict[str, Any]] = viewer.read("nodes")
        assert [node["health"] for node in nodes] == [None, None]
        assert [node["version"] for node in nodes] == [tambur.__version__] * 2
        ports = [url.rpartition(":")[2] for url in (server.url, other.url)]
        assert [node["node"].partition(",")[0].rpartition(":")[2] for node in nodes] == ports
