"""Reports of the other nodes while a viewer follows a stream: what each did with the publications."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..broker import AppKey
from ..cluster import Cluster
from .nodes import Nodes
from .trace import Trace
from .watch import TooManyTracesError, Watch

ASK_S = 1.0
"""Seconds between two questions to the other nodes about one stream."""

LEASE_S = 5.0
"""For how many seconds after a question a node traces the stream."""

_WORD = "trace"


@dataclass
class Reported:
    """The newest reports about one stream.

    Attributes:
        viewers: how many viewers of this node follow the stream.
        changed: grows with each change of the reports.
        reports: for each other node its name, and its publications or why there are none.
    """

    viewers: int = 0
    changed: int = 0
    reports: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Lease:
    """A stream that this node traces for others.

    Attributes:
        tracing: what ends with the lease.
        timer: ends the lease.
    """

    trace: Trace
    tracing: contextlib.ExitStack
    timer: asyncio.TimerHandle | None = None


class Reports:
    """Asks the other nodes, and reports to them.

    A question makes a node trace the stream for ``LEASE_S`` seconds, also if it has no console. So a node
    that nobody asks does nothing. Each answer has all publications of the trace. So a lost answer loses
    nothing.

    Parameters:
        nodes: the other nodes.
        cluster: answers their questions.
        watch: the observer of this node.
    """

    def __init__(self, nodes: Nodes, cluster: Cluster, watch: Watch) -> None:
        self._nodes = nodes
        self._watch = watch
        self._leases: dict[tuple[AppKey, str], _Lease] = {}
        self._asking: dict[tuple[AppKey, str], tuple[Reported, asyncio.Task[None]]] = {}
        cluster.answers[_WORD] = self._answer

    @contextlib.contextmanager
    def asking(self, app: AppKey, stream: str) -> Iterator[Reported]:
        """Ask the other nodes about a stream again and again. All viewers of the stream share the answers."""
        reported, task = self._asking.get((app, stream), (None, None))
        if reported is None or task is None:
            reported = Reported()
            task = asyncio.get_running_loop().create_task(self._ask(app, stream, reported))
            self._asking[app, stream] = reported, task
        reported.viewers += 1
        try:
            yield reported
        finally:
            reported.viewers -= 1
            if not reported.viewers:
                task.cancel()
                del self._asking[app, stream]

    async def _ask(self, app: AppKey, stream: str, reported: Reported) -> None:
        while True:
            reports = await self._nodes.ask(_WORD, app, stream)
            if reports != reported.reports or not reported.changed:
                reported.reports = reports
                reported.changed += 1
            await asyncio.sleep(ASK_S)

    async def _answer(self, app: AppKey, stream: str) -> dict[str, Any]:
        try:
            lease = self._leases.get((app, stream)) or self._begin(app, stream)
        except TooManyTracesError as error:
            return {"node": self._nodes.name, "failed": str(error)}
        if lease.timer is not None:
            lease.timer.cancel()
        lease.timer = asyncio.get_running_loop().call_later(LEASE_S, self._end, app, stream)
        publications = [traced.report() for traced in lease.trace.since(-1) if traced.key is not None]
        return {"node": self._nodes.name, "publications": publications}

    def _begin(self, app: AppKey, stream: str) -> _Lease:
        tracing = contextlib.ExitStack()
        lease = _Lease(tracing.enter_context(self._watch.following(app, stream)), tracing)
        self._leases[app, stream] = lease
        return lease

    def _end(self, app: AppKey, stream: str) -> None:
        self._leases.pop((app, stream)).tracing.close()
