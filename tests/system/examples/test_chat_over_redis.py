"""The chat with Flask, whose Tambur server is two nodes over Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

from .site import FLASK_COMMANDS, Site, TamburServer, Window, running


@pytest.fixture(scope="module")
def nodes(redis_server: RedisServer) -> Iterator[list[TamburServer]]:
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(2):
            node = TamburServer(f"redis://127.0.0.1:{redis_server.port}")
            stack.callback(node.stop)
            made.append(node)
        yield made


@pytest.fixture(scope="module")
def site(nodes: list[TamburServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The chat knows one address, behind which the nodes take connections in turn."""
    directory = tmp_path_factory.mktemp("flask")
    with TcpProxy(*(node.port for node in nodes)) as proxy:
        nodes[0].url = f"http://127.0.0.1:{proxy.port}"
        with running("flask_chat", directory, FLASK_COMMANDS, "--port", "0", tambur=nodes[0]) as site:
            yield site


def test_a_restart_of_the_nodes_loses_nothing(
    site: Site, nodes: list[TamburServer], alice: Window, bob: Window
) -> None:
    windows = (alice, bob)
    alice.wait_for_people("alice (you)", "bob")
    bob.wait_for_people("bob (you)", "alice")
    expected = []
    for number, node in enumerate(nodes):
        node.stop()
        try:
            for text in (f"{number} while the node is away", f"{number} still away"):
                assert site.say("carol", "lobby", "everybody", text) == 204
                expected.append(("carol", "everybody", text))
            for window in windows:
                window.wait_for(*expected)
        finally:
            node.start()
        text = f"{number} back"
        assert site.say("carol", "lobby", "everybody", text) == 204
        expected.append(("carol", "everybody", text))
        for window in windows:
            window.wait_for(*expected)
    alice.wait_for_people("alice (you)", "bob")
    bob.wait_for_people("bob (you)", "alice")
    for window in windows:
        # The browser's own words for the connections that broke.
        assert all("/tambur.js" in said for said in window.complaints())
