"""What a connection, a stream and a publish cost: ``python -m benchmarks.sizing`` prints the tables of docs/explanation/sizing.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import selectors
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from tambur import Tambur
from tambur.protocol.tokens import Mode, TokenSigner

from .clients import LongPoll, WebSocket, answer_pings
from .load import Load, subscribed
from .page import machine
from .report import Section, Table, number
from .servers import API_KEY, APP_ID, MESSAGE_BYTES, SECRET, Server, redis, signed, tambur

_ROOM = 10
"""How many users there are on a stream with presence."""

_WARM_UP = 100
_PUBLISHERS = 8
_QUIET = {"ping_interval_s": 500.0, "ping_timeout_s": 1000.0}
_CHANNEL = f"tambur:0:stream:{API_KEY}/{APP_ID}:news"
_RECENT = "tambur:0:recent"  # which is bounded by itself
_SIGNER = TokenSigner(API_KEY, APP_ID, SECRET)

Client = WebSocket | LongPoll


class Used(NamedTuple):
    """What a Redis has done, or holds, at one moment; CPU in seconds.

    Attributes:
        sent, executed: scripts called and subscriptions; and all other commands, most of them in scripts.
    """

    memory_bytes: float
    cpu_s: float
    in_bytes: float
    out_bytes: float
    sent: float
    executed: float

    def __sub__(self, before: Used) -> Used:
        return Used(*(a - b for a, b in zip(self, before, strict=True)))


class Cluster(NamedTuple):
    """A Redis, and the nodes over it."""

    redis: Redis
    nodes: list[Server]

    def used(self) -> Used:
        info: dict[str, Any] = self.redis.info("all")
        calls = {
            name.removeprefix("cmdstat_"): of["calls"] for name, of in info.items() if "cmdstat_" in name
        }
        # The nodes themselves send these and, of the rest, next to nothing.
        sent = sum(calls.get(name, 0) for name in ("evalsha", "subscribe", "unsubscribe"))
        others = (
            "info",
            "hello",
            "auth",
            "client|setinfo",
            "config|resetstat",
            "script|load",
            "select",
            "ping",
        )
        executed = sum(count for name, count in calls.items() if name not in others) - sent
        return Used(
            info["used_memory"],
            info["used_cpu_user"] + info["used_cpu_sys"],
            info["total_net_input_bytes"],
            info["total_net_output_bytes"],
            sent,
            executed,
        )


@contextlib.contextmanager
def cluster(nodes: int, **settings: Any) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        _, port = stack.enter_context(redis())
        broker = f"redis://127.0.0.1:{port}"
        started = [stack.enter_context(tambur(broker=broker, **settings)) for _ in range(nodes)]
        yield Cluster(stack.enter_context(Redis(port=port)), started)


# Connections.


def _nothing(_: Client, __: int) -> None:
    pass


def _shared_stream(client: Client, _: int) -> None:
    client.command("subscribe", "news")


def _own_stream(client: Client, index: int) -> None:
    client.command("subscribe", f"inbox-{index:08}")


def _ten_own_streams(client: Client, index: int) -> None:
    for stream in range(10):
        client.command("subscribe", f"inbox-{index:08}-{stream}")


def _presence(client: Client, index: int) -> None:
    stream, user = f"room-{index // _ROOM:07}", f"user-{index:08}"
    client.command("subscribe", stream)
    token = _SIGNER.sign(Mode.PRESENCE, stream, client.subscriber_id, user)
    client.command("set_mode", "presence", stream, user, token)


_CONNECTIONS: Mapping[str, tuple[Callable[[int], Client], Callable[[Client, int], None]]] = {
    "WebSocket, subscribed to nothing": (WebSocket, _nothing),
    "WebSocket, one stream that all share": (WebSocket, _shared_stream),
    "WebSocket, one stream of its own": (WebSocket, _own_stream),
    "WebSocket, ten streams of its own": (WebSocket, _ten_own_streams),
    f"WebSocket, presence on a stream of {_ROOM} users": (WebSocket, _presence),
    "long polling, one stream that all share": (LongPoll, _shared_stream),
}


def connections(*, quick: bool) -> Section:
    """Memory of connections, and processor time to open one."""
    count = 200 if quick else 5000
    table = Table(
        ["a connection", "node, KiB", "Redis, bytes", "opening: node, CPU µs", "opening: Redis, CPU µs"]
    )
    kernel_kib: list[float] = []
    bases: list[int] = []
    for name, (connect, prepare) in _CONNECTIONS.items():
        with cluster(1, limits=_QUIET) as over:
            (node,) = over.nodes
            bases.append(node.process.private_bytes())
            with contextlib.ExitStack() as stack:
                for index in range(_WARM_UP):
                    _open(stack, node, connect, prepare, index)
            _settled(over)
            memory, slab = node.process.private_bytes(), _slab_kib()
            used, cpu = over.used(), node.process.cpu()
            with contextlib.ExitStack() as stack:
                for index in range(count):
                    _open(stack, node, connect, prepare, index)
                cost = over.used() - used
                table.add(
                    name,
                    f"{(node.process.private_bytes() - memory) / 1024 / count:.1f}",
                    f"{max(0, cost.memory_bytes) / count:.0f}",
                    number(1e6 * (node.process.cpu() - cpu).total_s / count),
                    number(1e6 * cost.cpu_s / count),
                )
                kernel_kib.append((_slab_kib() - slab) / 2 / count)
    pings = _pings(quick=quick)
    more = Table(["besides", "cost"])
    more.add("a node without connections", f"{statistics.median(bases) / 2**20:.0f} MiB")
    more.add(
        "the kernel, for a socket (half of what `Slab` grew by)", f"{statistics.median(kernel_kib):.1f} KiB"
    )
    more.add(
        "a ping and its pong, every `ping_interval_s`, with the timers", f"{pings:.0f} µs CPU of the node"
    )
    return Section(
        "A connection",
        f"{count:,} connections to one node over Redis, less what there was before. Memory of the node is what is "
        "private to its process; that of Redis is its `used_memory`. A shared stream costs Redis one subscription a node.",
        [table, more],
    )


def _open(
    stack: contextlib.ExitStack,
    node: Server,
    connect: Callable[[int], Client],
    prepare: Callable[[Client, int], None],
    index: int,
) -> None:
    client = connect(node.port)
    stack.enter_context(contextlib.closing(client))
    prepare(client, index)
    client.wait()


def _settled(over: Cluster) -> None:
    """Wait until nobody is subscribed any more to anything but each node's own channel."""
    while over.redis.pubsub_channels("*:stream:*") or over.redis.keys("*:present:*"):
        time.sleep(0.05)


def _slab_kib() -> int:
    found = re.search(r"^Slab:\s+(\d+) kB$", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _pings(*, quick: bool) -> float:
    count, seconds = (100, 1.5) if quick else (2000, 10)
    with tambur(limits={"ping_interval_s": 1}) as node, contextlib.ExitStack() as stack:
        clients = [WebSocket(node.port) for _ in range(count)]
        for client in clients:
            stack.enter_context(contextlib.closing(client))
        answer_pings(clients, 1)
        before = node.process.cpu()
        pings = answer_pings(clients, seconds)
        return 1e6 * (node.process.cpu() - before).total_s / pings


# Publishes.


def publishes(*, quick: bool) -> Section:
    """Processor time of a publish, what goes to Redis and comes from it."""
    count = 200 if quick else 10_000
    table = Table(
        [
            f"a publish of {MESSAGE_BYTES} bytes", "node, CPU µs", "Redis, CPU µs", "to Redis, bytes",
            "from Redis, bytes", "scripts called", "commands in them",
        ]
    )  # fmt: skip
    with tambur() as node, _publishers(node, node, 0, count) as load:
        table.add("`memory://`, no subscriber", number(_cpu_us(load, count)), *[""] * 5)
    with cluster(2) as over:
        first, second = over.nodes
        for listeners in (0, 1, 10, 40):
            with _listening(over, listeners), _publishers(first, first, 0, count) as load:
                used = over.used()
                cpu_us = _cpu_us(load, count)
                cost = over.used() - used
            table.add(
                f"`redis://`, nodes that listen: {listeners}",
                *map(
                    number, (cpu_us, 1e6 * cost.cpu_s / count, cost.in_bytes / count, cost.out_bytes / count)
                ),
                *map(number, (cost.sent / count, cost.executed / count)),
            )
        with _publishers(second, first, 1, count) as load:
            received_us = _cpu_us(load, count)
    deliveries = Table(["", "CPU µs of the node"])
    deliveries.add("a message that comes from Redis, delivered to one subscriber", number(received_us))
    subscribers, seconds = (50, 0.5) if quick else (1000, 4)
    with tambur() as node, subscribed(node, subscribers, 20_000) as load:
        calm, busy = load.run("pace", seconds, 20), load.run("wait", seconds / 2)
    for name, run in (
        ("20 messages a second, each written at once", calm),
        ("as fast as it goes, coalesced", busy),
    ):
        deliveries.add(f"a delivery, {subscribers:,} subscribers, {name}", number(run.cpu_us))
    return Section(
        "A publish",
        f"{count:,} publishes by {_PUBLISHERS} publishers, each of which waits for its answers. The nodes that listen are "
        "connections that are subscribed to the stream, which is all that Redis sees of a node. What a publish costs is "
        "in the price of its deliveries.",
        [table, deliveries],
    )


@contextlib.contextmanager
def _publishers(subscribed_at: Server, published_at: Server, subscribers: int, count: int) -> Iterator[Load]:
    """So many requests prepared, and some published already; what is measured is the subscribers' node."""
    options = {**subscribed_at.options, "publish-port": str(published_at.port)}
    server = subscribed_at._replace(options=options, request=published_at.request)
    with subscribed(server, subscribers, count + _WARM_UP) as load:
        load.run("count", _WARM_UP, _PUBLISHERS)
        yield load


def _cpu_us(load: Load, count: int) -> float:
    """Processor time of a publish, in microseconds."""
    return 1e6 * load.run("count", count, _PUBLISHERS).server.total_s / count


@contextlib.contextmanager
def _listening(over: Cluster, count: int) -> Iterator[None]:
    """So many connections that are subscribed to the stream, and read."""
    port = over.redis.connection_pool.connection_kwargs["port"]
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(count):
            listener = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            listener.sendall(f"SUBSCRIBE {_CHANNEL}\r\n".encode())
            listener.recv(65536)
            selector.register(listener, selectors.EVENT_READ)
        end, start = socket.socketpair()
        selector.register(stack.enter_context(end), selectors.EVENT_READ)
        stack.enter_context(start)

        def read() -> None:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is end:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.recv(1 << 20)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            start.sendall(b".")
            reader.join()


# What Redis keeps, and is asked for though nothing happens.


def standing(*, quick: bool) -> Section:
    """Memory of claims, and the renewal of leases."""
    table = Table(["Redis", "cost"])
    for per_s, seconds in ((50, 2),) if quick else ((100, 60), (1000, 20)):
        with cluster(1) as over:
            table.add(
                f"a claim, {per_s:,} publishes a second", f"{_claim_bytes(over, per_s, seconds):.0f} bytes"
            )
    # Leases are not swept before a node has been there for as long as one lasts.
    timeout_s, warm_up_s, measured_s = (2.0, 2.0, 2.0) if quick else (30.0, 25.0, 45.0)
    nodes = 2
    with cluster(nodes, node_timeout_s=timeout_s) as over:
        time.sleep(warm_up_s)
        before, started = over.used(), time.monotonic()
        time.sleep(measured_s)
        cost, passed = over.used() - before, time.monotonic() - started
    each = nodes * passed
    table.add(
        f"a node that does nothing, `node_timeout_s = {timeout_s:g}`",
        f"{cost.sent / each:.2f} scripts/s, {cost.executed / each:.2f} commands/s in them, "
        f"{cost.in_bytes / each:.0f} bytes/s in, {1e6 * cost.cpu_s / each:.0f} µs CPU/s",
    )
    return Section(
        "What Redis keeps", "A claim is kept for 331 s after the timestamp of its publish.", [table]
    )


def _claim_bytes(over: Cluster, per_s: int, seconds: int) -> float:
    """Publish as a steady rate would have, with the timestamps of so many seconds."""
    (node,) = over.nodes
    client = Tambur(API_KEY, APP_ID, SECRET, f"http://127.0.0.1:{node.port}")
    now = int(time.time())
    before = over.used()
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        answers = connection.makefile("rb")
        for index in range(per_s * seconds):
            connection.sendall(signed(client, "x", now - 100 - index // per_s))
            if not answers.readline().startswith(b"HTTP/1.1 204"):
                raise RuntimeError("a publish was refused")
            while answers.readline() != b"\r\n":
                pass
    over.redis.delete(_RECENT)
    return (over.used().memory_bytes - before.memory_bytes) / per_s / seconds


PARTS = {"connections": connections, "publishes": publishes, "standing": standing}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizing", description="Measure what a server's load costs."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: to see that it works")
    arguments = parser.parse_args()
    for name in arguments.parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; the parts are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every process that was started ends, too
    with cluster(0) as over:
        server = f"redis-server {over.redis.info('server')['redis_version']}"
    print(f"{machine(os.getloadavg()[0], [server])}\n", flush=True)
    for name in arguments.parts or PARTS:
        print(PARTS[name](quick=arguments.quick).markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
