"""The Redis broker."""

from __future__ import annotations

import pytest

from tambur.server.broker import CLAIM_WINDOW_S, Broker, from_url
from tambur.server.broker.redis import MAX_CLOCK_SKEW_S
from tests.redis_server import RedisServer

from .contract import BrokerContract


class TestRedisBroker(BrokerContract):
    kept_s = CLAIM_WINDOW_S + MAX_CLOCK_SKEW_S

    @pytest.fixture(autouse=True)
    def cluster(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()
        redis_server.cli("FLUSHALL")

    def make(self, *, max_claims: int = 100) -> Broker:
        return from_url(self.url, max_claims=max_claims, node_timeout_s=30)
