"""The parts of a server that its console shows and uses."""

from __future__ import annotations

from typing import NamedTuple

from ..broker import Backend
from ..config import Config
from ..disconnects import Disconnects
from ..extended_hub import ExtendedHub
from ..queries import Queries
from ..webhooks.delivery import Webhooks
from .nodes import Nodes
from .reports import Reports
from .watch import Watch


class Parts(NamedTuple):
    """The parts of one server.

    Attributes:
        config: its apps and settings.
        hub: its subscribers.
        backend: its part in the cluster.
        webhooks: its endpoints of webhooks.
        queries: answers questions about streams.
        disconnects: ends sessions.
        nodes: describes it and the other nodes.
        watch: its observer.
        reports: what the other nodes did with a publication.
    """

    config: Config
    hub: ExtendedHub
    backend: Backend
    webhooks: Webhooks
    queries: Queries
    disconnects: Disconnects
    nodes: Nodes
    watch: Watch
    reports: Reports
