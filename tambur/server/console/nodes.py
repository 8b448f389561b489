"""The nodes of the cluster: their health, version and age, their samples and refusals."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from ... import __version__
from ..broker import AppKey, Backend, BrokerUnavailableError
from ..cluster import Cluster
from .feed import Feed
from .samples import INTERVAL_S

_WORD = "node"


class Nodes:
    """Describes this node, and asks the others. Each node answers with an object that has its name.

    Parameters:
        backend: knows the health of this node.
        cluster: the other nodes.
        port: the port that this node listens on.
        clock: returns seconds since 1970.

    Attributes:
        name: of this node, for the consoles of all nodes.
        feeds: the samples and refusals of this node, whose items begin with their time; empty without a
            console.
    """

    def __init__(
        self, backend: Backend, cluster: Cluster, port: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._shifts: dict[str, float] = {}  # how far the clocks of other nodes are behind, by their names
        self._backend = backend
        self._cluster = cluster
        self.name = f"{socket.gethostname()}:{port}, process {os.getpid()}"
        self.feeds: Mapping[str, Feed[Any]] = {}
        self._began_at = time.monotonic()
        self._names: dict[str, str] = {}  # of the other nodes, by their IDs
        cluster.answers[_WORD] = self._answer

    async def all(self, app: AppKey, seen: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
        """This node, and the others with what is new in their feeds.

        Parameters:
            app: any app of the server.
            seen: for each node by its name, how many items of each feed the viewer has seen. This changes it.
        """
        found = [self._this()]
        for answer in await self.ask(_WORD, app, seen):
            if "failed" in answer:
                found.append({**answer, "health": answer["failed"], "version": None, "age_s": None})
            else:
                seen[answer["node"]] = answer.pop("seen")
                self._shift(answer)
                found.append(answer)
        return found

    def _shift(self, answer: dict[str, Any]) -> None:
        """Translate times by the clock of another node to this node's clock."""
        behind_s, shift_s = self._clock() - answer.pop("now"), self._shifts.get(answer["node"], 0.0)
        # Times of samples stay multiples of the interval. A little difference does no harm.
        if abs(behind_s - shift_s) > INTERVAL_S:
            shift_s = self._shifts[answer["node"]] = round(behind_s / INTERVAL_S) * INTERVAL_S
        if shift_s:
            for name in ("samples", "refusals"):
                for item in answer.get(name, ()):
                    item[0] += shift_s

    async def ask(self, word: str, app: AppKey, *arguments: object) -> list[dict[str, Any]]:
        """Have the other nodes answer.

        Parameters:
            word: the kind of question, see :class:`~tambur.server.cluster.Cluster`.

        Returns:
            The answers in the order of the nodes' names. Without an answer of a node, ``"failed"`` says why.
        """
        try:
            answers = await self._cluster.ask_each(word, app, *arguments)
        except BrokerUnavailableError as error:
            return [{"node": "other nodes", "failed": str(error)}]
        # The name of a node that does not answer is known if it answered before.
        self._names = {node: self._names.get(node, node) for node in answers}
        found = []
        for node, answer in answers.items():
            if isinstance(answer, BrokerUnavailableError):
                found.append({"node": self._names[node], "failed": "does not answer"})
            else:
                self._names[node] = answer["node"]
                found.append(answer)
        return sorted(found, key=lambda answer: str(answer["node"]))

    def _this(self) -> dict[str, Any]:
        return {
            "node": self.name,
            "health": self._backend.unavailable_reason,
            "version": __version__,
            "age_s": round(time.monotonic() - self._began_at),
        }

    async def _answer(self, _: AppKey, seen: dict[str, dict[str, int]]) -> dict[str, Any]:
        before = seen.get(self.name, {})
        new = {name: feed.since(before.get(name, 0)) for name, feed in self.feeds.items()}
        ends = {name: feed.end for name, feed in self.feeds.items()}
        return {**self._this(), **new, "seen": ends, "now": self._clock()}
