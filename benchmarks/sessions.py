"""Sessions: what they cost beside plain connections, and how subscribers move to another node."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import itemgetter

from redis import Redis

from tambur import Tambur
from tambur.server.broker.redis.scripts import READ

from .delivery import BURST, kib_each
from .load import loaded, subscribed
from .report import Section, interleave, table
from .resuming import Subscriber, connect_all
from .servers import MESSAGE_BYTES, Starter, message, over_redis, redis, stream, tambur

PLAIN, EXTENDED, RESUMED = "plain", "extended", "extended, resumed"
_KINDS: dict[str, Starter] = {PLAIN: tambur, EXTENDED: partial(tambur, is_extended=True)}
_HISTORY_ATTEMPTS = 10


def sessions(*, quick: bool) -> Section:
    """Fan-out, connecting and memory, of extended connections beside plain ones."""
    subscribers, connections, rounds = (100, 200, 1) if quick else (1000, 5000, 9)

    def fan_out(start: Starter) -> float:
        with loaded(start, subscribers, 4000) as load:
            load.run("burst", 1, BURST)
            return load.run("burst", 1 if quick else 10, BURST).cpu_us

    jobs: dict[str, tuple[Callable[[Starter], float], int]] = {
        f"CPU µs a delivery to {subscribers:,}": (fan_out, rounds),
        f"KiB of {connections:,} idle connections": (partial(kib_each, connections), min(rounds, 3)),
    }
    tables = []
    for title, (measure, times) in jobs.items():
        found = interleave({kind: partial(measure, start) for kind, start in _KINDS.items()}, times)
        tables.append(table(title, found, {"each": float}, against=PLAIN))
    for broker, start in {"`memory://`": tambur, "Redis": over_redis}.items():
        runs = [
            asyncio.run(_connect(start, subscribers, 0.1 if quick else 0.3))
            for _ in range(1 if quick else 12)
        ]
        used = {kind: [run[kind] for run in runs] for kind in (PLAIN, EXTENDED, RESUMED)}
        tables.append(
            table(f"CPU µs of connecting and subscribing, {broker}", used, {"each": float}, against=PLAIN)
        )
    return Section(
        "Sessions",
        f"Extended connections beside plain ones, in turns. Messages come in bursts of {BURST}. A subscriber that resumes continues its session, and "
        "subscribes with its position. Nothing was published meanwhile.",
        tables,
    )


async def _connect(start: Starter, count: int, settled_s: float) -> dict[str, float]:
    """The server's processor time of connecting, in microseconds each.

    Parameters:
        settled_s: for how long it must have nothing to do before its time is read.
    """
    used = {}
    with start() as server:
        plain, extended = (
            [Subscriber(server.port, "news", is_extended=kind == EXTENDED) for _ in range(count)]
            for kind in _KINDS
        )
        for kind, subscribers in (("", plain), (PLAIN, plain), (EXTENDED, extended), (RESUMED, extended)):
            before = await server.process.settled_cpu_s(settled_s)
            await connect_all(subscribers)
            used[kind] = 1e6 * (await server.process.settled_cpu_s(settled_s) - before) / count
            if any(subscriber.failures for subscriber in subscribers):
                raise RuntimeError("the server did not resume every session")
            for subscriber in subscribers:
                subscriber.cut()
    return used


STREAMS, RATE_PER_S = 100, 100


def failover(*, quick: bool) -> Section:
    """One of two nodes is killed."""
    count, seconds = (200, 2) if quick else (5000, 20)
    found = [asyncio.run(_fail_over(count, seconds)) for _ in range(1 if quick else 3)]
    figures: dict[str, Callable[[dict[str, float]], float]] = {name: itemgetter(name) for name in found[0]}
    return Section(
        "Failover",
        f"{count:,} subscribers of {STREAMS} streams have one of two nodes over Redis, which is killed. They resume at "
        f"the other one, and wait before that as tambur.js does. It takes {RATE_PER_S} publishes a second meanwhile. "
        "Times are from the kill to the ack of the subscribe, and from when a publish is due to its answer. The last "
        "figure is of the stream whose log was read most often.",
        [table("subscribers", {f"{count:,}": found}, figures, against="", ratios=0)],
    )


async def _fail_over(count: int, seconds: int) -> dict[str, float]:
    with redis() as (_, port), Redis(port=port) as client:
        node = partial(tambur, broker=f"redis://127.0.0.1:{port}", streams=STREAMS)
        with node() as killed, node() as other, subscribed(other, 0, seconds * RATE_PER_S) as load:
            subscribers = [Subscriber(killed.port, stream(number % STREAMS)) for number in range(count)]
            await connect_all(subscribers)
            tasks = [asyncio.create_task(subscriber.stay()) for subscriber in subscribers]
            client.config_set("slowlog-max-len", 100 * count)
            client.config_set("slowlog-log-slower-than", 0)  # so that it holds all commands
            publishing = asyncio.create_task(asyncio.to_thread(load.run, "pace", seconds, RATE_PER_S))
            await asyncio.sleep(seconds / 5)
            for subscriber in subscribers:
                subscriber.port = other.port
            killed_at = time.monotonic()
            os.kill(killed.process.pid, signal.SIGKILL)
            run = await publishing
            due = {
                stream(number): [*range(number, run.found["published"], STREAMS)] for number in range(STREAMS)
            }
            while time.monotonic() < killed_at + 60 and any(s.received != due[s.stream] for s in subscribers):  # noqa: ASYNC110 - a poll costs the least
                await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=5)
            calls = [entry["command"].decode("latin-1").split() for entry in client.slowlog_get(-1)]
    # Each log that the script reads has five arguments, the second of which is its name.
    reads = Counter(name for call in calls if READ.digest in call for name in call[-4::-5] if name in due)
    took = sorted(s.resumed_at - killed_at for s in subscribers if s.resumed_at)
    return {
        "resumed": len(took),
        "messages missed or doubled, at least": sum(
            abs(len(s.received) - len(due[s.stream])) or s.received != due[s.stream] for s in subscribers
        ),
        "failed attempts, lost sessions, incomplete answers": sum(s.failures for s in subscribers),
        "p50 s": took[len(took) // 2] if took else -1,
        "p99 s": took[int(0.99 * len(took))] if took else -1,
        "publisher's p99 ms": run.p99_ms,
        "reads of a log": max(reads.values(), default=0),
    }


def history(*, quick: bool) -> Section:
    """Redis' memory for a stream with one kept message, and for one whose message has expired."""
    streams, limits = 100 if quick else 2000, {"history_ttl_s": 2 if quick else 10}
    with (
        redis() as (_, port),
        tambur(broker=f"redis://127.0.0.1:{port}", limits=limits, node_timeout_s=3) as server,
        Redis(port=port) as client,
        Tambur.from_url(server.url) as publisher,
    ):

        def bytes_each() -> float:
            return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter()) / streams

        found = {"before": [bytes_each()]}
        for _ in range(_HISTORY_ATTEMPTS):
            publisher.publish_many((stream(number), message(number)) for number in range(streams))
            found["one message kept"] = [bytes_each()]
            are_kept = len(client.keys("*:log:*")) == streams  # on a busy machine, some may have expired
            until = time.monotonic() + 60
            while client.keys("*:log:*") and time.monotonic() < until:
                time.sleep(0.1)
            if are_kept:
                break
        found["it has expired"] = [bytes_each()]
    return Section(
        "History in Redis",
        f"`MEMORY USAGE` of all keys, for each of {streams:,} streams with one message of {MESSAGE_BYTES} bytes.",
        [table("streams", found, {"bytes each": float}, against="", ratios=0)],
    )
