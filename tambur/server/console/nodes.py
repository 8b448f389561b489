"""The nodes of the cluster: their health, version and age."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from ... import __version__
from ..broker import AppKey, Backend, BrokerUnavailableError
from ..cluster import Cluster

AGE_S = 4.0
"""For how many seconds the answers of the other nodes are shown."""

_WORD = "node"


class Nodes:
    """Describes this node, also to the consoles of others.

    Parameters:
        backend: knows the health of this node.
        cluster: the other nodes.
        port: the port that this node listens on.
    """

    def __init__(self, backend: Backend, cluster: Cluster, port: int) -> None:
        self._backend = backend
        self._cluster = cluster
        self._name = f"{socket.gethostname()}:{port}, process {os.getpid()}"
        self._began_at = time.monotonic()
        self._asked_at = -AGE_S
        self._others: list[dict[str, Any]] = []
        cluster.answers[_WORD] = self._answer

    async def all(self, app: AppKey) -> list[dict[str, Any]]:
        """This node and the others, as the page shows them.

        Parameters:
            app: any app of the server.
        """
        if time.monotonic() - self._asked_at >= AGE_S:
            self._asked_at = time.monotonic()
            try:
                self._others = await self._cluster.ask_all(_WORD, app)
            except BrokerUnavailableError as error:
                self._others = [{"node": "other nodes", "health": str(error), "version": None, "age_s": None}]
        return [self._this(), *sorted(self._others, key=lambda other: str(other["node"]))]

    def _this(self) -> dict[str, Any]:
        return {
            "node": self._name,
            "health": self._backend.unavailable_reason,
            "version": __version__,
            "age_s": round(time.monotonic() - self._began_at),
        }

    async def _answer(self, _: AppKey) -> dict[str, Any]:
        return self._this()
