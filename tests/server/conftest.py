"""Servers that wait for a slow machine: what a test does not wait for itself never times out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tambur.server import cluster
from tambur.server.broker.redis import link, shard
from tambur.server.console import listener
from tambur.server.transports import longpoll, polled_connection, websocket

from ..support.wire import TIMEOUT_S


@pytest.fixture(scope="package", autouse=True)
def patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "TIMEOUT_S", TIMEOUT_S)
        patch.setattr(link, "CALL_TIMEOUT_S", TIMEOUT_S)
        patch.setattr(shard, "CALL_TIMEOUT_S", TIMEOUT_S)
        patch.setattr(shard, "GOODBYE_TIMEOUT_S", TIMEOUT_S)
        patch.setattr(websocket, "CLOSE_TIMEOUT_S", TIMEOUT_S)
        patch.setattr(longpoll, "BROKEN_POLL_GRACE_S", TIMEOUT_S)
        patch.setattr(polled_connection, "BROKEN_POLL_GRACE_S", TIMEOUT_S)
        patch.setattr(polled_connection, "CLOSED_GRACE_S", TIMEOUT_S)
        patch.setattr(listener, "END_S", TIMEOUT_S)
        yield
