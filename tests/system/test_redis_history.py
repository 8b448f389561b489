"""Redis comes back with all messages, or without the newest ones: what clients that come back are answered."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tambur.server import Config, Server, in_background
from tests.support.app import APP
from tests.support.extended import Client
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

from ..support.wire import TIMEOUT_S, ask, signed

NODE_TIMEOUT_S = 60.0
"""No lease ends and no proof comes too late, however busy the machine is."""


@contextlib.contextmanager
def two_nodes(port: int) -> Iterator[tuple[Server, Server]]:
    broker = f"redis://127.0.0.1:{port}"
    config = Config(apps=(APP,), port=0, broker=broker, node_timeout_s=NODE_TIMEOUT_S)
    with in_background(config) as one, in_background(config) as two:
        yield one, two


def publish(node: Server, stream: str, text: str) -> None:
    """Send the same bytes again until the server takes them, as a publisher would."""
    request = signed(node, stream, text)
    deadline = time.monotonic() + TIMEOUT_S
    while ask(node, request).status != 204:
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Visitor:
    """A client that received one message and lost its connection, and one that stays connected."""

    def __init__(self, node: Server, stack: contextlib.ExitStack) -> None:
        self.lost = stack.enter_context(Client(node))
        self.stays = stack.enter_context(Client(node))
        for client in (self.lost, self.stays):
            self.since = client.ask("subscribe", "s")["position"]
        self.lost.connection.close()

    def back(self, node: Server) -> tuple[bool, bool, list[str]]:
        """Come back: whether private messages and those of the stream are complete, and what was replayed."""
        hello = self.lost.hello
        with Client(node, session=hello["session"], since=hello["position"]) as client:
            assert client.hello["resumed"] is True
            answer = client.ask("subscribe", "s", {"since": self.since})
            return client.hello["complete"], answer["complete"], client.bodies

    def stayed(self, count: int) -> list[str]:
        """The messages of the one that stays."""
        return [self.stays.json()[3] for _ in range(count)]


def both_have_found_it(one: Server, two: Server) -> None:
    """Wait until both nodes have Redis again: each publishes one message, to ``t`` and to ``s``."""
    for node, stream in ((one, "t"), (two, "s")):
        publish(node, stream, "after")


def is_right_from_now_on(one: Server, two: Server) -> None:
    """New positions are complete on all nodes."""
    with Client(one) as client:
        since = client.ask("subscribe", "s")["position"]
    publish(two, "s", "new")
    for node in (one, two):
        with Client(node) as client:
            assert client.ask("subscribe", "s", {"since": since})["complete"] is True
            assert client.bodies == ["new"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_that_keeps_all_messages_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with contextlib.ExitStack() as stack:
        redis = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
        stack.callback(redis.end)
        one, two = stack.enter_context(two_nodes(redis.port))
        visitor = Visitor(one, stack)
        publish(two, "s", "before")
        redis.end(number)
        redis.start()
        both_have_found_it(one, two)
        assert visitor.back(two) == (True, True, ["before", "after"])
        assert visitor.stayed(2) == ["before", "after"]


def test_a_restart_from_an_older_copy_is_recognized(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        redis = RedisServer(tmp_path)
        stack.callback(redis.end)
        one, two = stack.enter_context(two_nodes(redis.port))
        visitor = Visitor(one, stack)
        publish(one, "s", "kept")
        redis.cli("SAVE")
        publish(one, "s", "lost")
        assert visitor.stayed(2) == ["kept", "lost"]
        redis.end(signal.SIGKILL)
        redis.start()
        both_have_found_it(one, two)
        assert visitor.back(one) == (False, False, [])
        assert visitor.back(two) == (False, False, [])
        assert visitor.stays.close_code() == 1012
        is_right_from_now_on(one, two)


@contextlib.contextmanager
def replicated(directory: Path) -> Iterator[tuple[RedisServer, RedisServer, TcpProxy]]:
    """A master, its replica, and a proxy before the master."""
    with contextlib.ExitStack() as stack:
        servers = []
        for name in ("master", "replica"):
            (directory / name).mkdir()
            server = RedisServer(directory / name, "--repl-diskless-sync-delay", "0")
            stack.callback(server.end)
            servers.append(server)
        master, replica = servers
        replica.cli("REPLICAOF", "127.0.0.1", str(master.port))
        deadline = time.monotonic() + TIMEOUT_S
        while "master_link_status:up" not in replica.cli("INFO", "replication"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield master, replica, stack.enter_context(TcpProxy(master.port))


def until_replicated(master: RedisServer, replica: RedisServer) -> None:
    """Wait until the replica has everything that the master had before the call."""

    def offset(server: RedisServer) -> int:
        found = re.search(r"^master_repl_offset:(\d+)", server.cli("INFO", "replication"), re.MULTILINE)
        assert found is not None
        return int(found[1])

    wanted, deadline = offset(master), time.monotonic() + TIMEOUT_S
    while offset(replica) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_failover_that_lost_nothing_is_proven(tmp_path: Path) -> None:
    with replicated(tmp_path) as (master, replica, proxy), contextlib.ExitStack() as stack:
        one, two = stack.enter_context(two_nodes(proxy.port))
        visitor = Visitor(one, stack)
        publish(two, "s", "before")
        until_replicated(master, replica)
        proxy.refuse(True)
        proxy.drop()
        until_replicated(master, replica)
        replica.cli("REPLICAOF", "NO", "ONE")
        proxy.redirect(replica.port)
        proxy.refuse(False)
        both_have_found_it(one, two)
        assert visitor.back(two) == (True, True, ["before", "after"])
        assert visitor.stayed(2) == ["before", "after"]


def test_a_failover_to_a_replica_without_the_newest_messages_is_recognized(tmp_path: Path) -> None:
    with replicated(tmp_path) as (master, replica, proxy), contextlib.ExitStack() as stack:
        one, two = stack.enter_context(two_nodes(proxy.port))
        visitor = Visitor(one, stack)
        publish(one, "s", "kept")
        until_replicated(master, replica)
        replica.cli("REPLICAOF", "NO", "ONE")
        publish(one, "s", "lost")
        assert visitor.stayed(2) == ["kept", "lost"]
        master.end(signal.SIGKILL)
        proxy.redirect(replica.port)
        both_have_found_it(one, two)
        assert visitor.back(one) == (False, False, [])
        assert visitor.back(two) == (False, False, [])
        assert visitor.stays.close_code() == 1012
        is_right_from_now_on(one, two)


def test_a_redis_that_loses_everything_is_recognized(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        redis = RedisServer(tmp_path)
        stack.callback(redis.end)
        one, two = stack.enter_context(two_nodes(redis.port))
        visitor = Visitor(one, stack)
        redis.end(signal.SIGKILL)
        redis.start()
        both_have_found_it(one, two)
        assert visitor.back(one) == (False, False, [])
        is_right_from_now_on(one, two)
