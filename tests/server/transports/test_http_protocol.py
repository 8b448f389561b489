"""Handshakes of WebSockets that wait for their turn, over real sockets."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

import pytest

from tambur.server import Config, in_background
from tambur.server.turnstile import Turnstile
from tests.support.app import APP

from ...support.wire import TIMEOUT_S, Socket, connect, handshake, read_all


def test_a_frame_that_comes_before_the_handshake_begins_is_answered_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting: queue.Queue[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = queue.Queue()

    def hold(_: Turnstile, step: Callable[[], None]) -> None:
        waiting.put((asyncio.get_running_loop(), step))

    monkeypatch.setattr(Turnstile, "pass_through", hold)
    with in_background(Config(apps=(APP,), port=0)) as server, connect(server) as connection:
        connection.sendall(handshake())
        loop, begin = waiting.get(timeout=TIMEOUT_S)
        connection.sendall(b"\x89\x80mask")  # a ping
        loop.call_soon_threadsafe(begin)
        received = b""
        while not received.endswith(b"\x8a\x00"):
            received += connection.recv(4096)
        assert received.startswith(b"HTTP/1.1 101 ")


def test_a_server_that_stops_begins_no_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = threading.Event()
    connections: list[int] = []

    def hold(_: Turnstile, step: Callable[[], None]) -> None:
        arrived.set()

        async def begin_when_closed() -> None:
            while server._uvicorn.server_state.connections:  # noqa: ASYNC110 - nothing tells of the end
                await asyncio.sleep(0)
            step()
            connections.append(server._hub.gauges().connections)

        tasks.append(asyncio.get_running_loop().create_task(begin_when_closed()))

    tasks: list[asyncio.Task[None]] = []
    monkeypatch.setattr(Turnstile, "pass_through", hold)
    with in_background(Config(apps=(APP,), port=0)) as server, connect(server) as connection:
        connection.sendall(handshake())
        assert arrived.wait(TIMEOUT_S)
        server.stop()
        assert read_all(connection) == b""
    assert connections == [0]


def test_many_handshakes_at_once_are_all_answered() -> None:
    with in_background(Config(apps=(APP,), port=0)) as server:
        connections = [connect(server) for _ in range(20)]
        for connection in connections:
            connection.sendall(handshake())
        for connection in connections:
            with connection:
                assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        with Socket(server) as one:
            assert one.command("subscribe", 1, "s") == ["ack", 1, "ok"]
