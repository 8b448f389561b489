"""Metrics of a server for Prometheus: ``pip install 'tambur[metrics]>=1'``."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator

from ..errors import ConfigurationError
from .hub import Hub
from .webhooks.delivery import Webhooks

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        Metric,
        SummaryMetricFamily,
    )
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "metrics_port needs prometheus-client, which is not installed; pip install 'tambur[metrics]>=1'",
        name=error.name,
    ) from None

ADDRESS = "127.0.0.1"
"""The metrics are available on this machine only."""

_ENDPOINT = ["app", "origin", "endpoint"]

TIMEOUT_S = 5.0
"""Seconds that the event loop may take to read the metrics."""


class Metrics:
    """Answers ``GET /metrics`` in its own threads. Listens from construction on.

    Parameters:
        port: the port to listen on.
        hub: the hub of the server.
        webhooks: its endpoints of webhooks.

    Raises:
        ConfigurationError: if it cannot listen.
    """

    def __init__(self, port: int, hub: Hub, webhooks: Webhooks) -> None:
        registry = CollectorRegistry()
        self._collector = _Collector(hub, webhooks)
        registry.register(self._collector)
        with _named(port):
            self._server, self._thread = start_http_server(port, ADDRESS, registry)

    def start(self) -> None:
        """Begin to collect. Call this in the event loop of the hub."""
        self._collector.loop = asyncio.get_running_loop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def check_port(port: int) -> None:
    """Check that metrics can listen on a port.

    Raises:
        ConfigurationError: if not.
    """
    with _named(port):
        socket.create_server((ADDRESS, port)).close()


@contextlib.contextmanager
def _named(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {ADDRESS}, metrics_port {port}: {error.strerror}"
        ) from None


class _Collector(Collector):
    def __init__(self, hub: Hub, webhooks: Webhooks) -> None:
        self._hub = hub
        self._webhooks = webhooks
        self.loop: asyncio.AbstractEventLoop | None = None

    def collect(self) -> Iterable[Metric]:
        if self.loop is None:
            return []
        # All values are read in one turn of the event loop, so they fit together.
        return asyncio.run_coroutine_threadsafe(self._read(), self.loop).result(TIMEOUT_S)

    async def _read(self) -> list[Metric]:
        counts, gauges, memory = self._hub.counts, self._hub.gauges(), self._hub.memory
        publishes = CounterMetricFamily("tambur_publishes", "Answered publishes.", labels=["status"])
        for status, count in sorted(counts.publishes.items()):
            publishes.add_metric([str(status)], count)
        queries = CounterMetricFamily("tambur_queries", "Answered queries.", labels=["query", "status"])
        for (word, status), count in sorted(counts.queries.items()):
            queries.add_metric([word, str(status)], count)
        refused = CounterMetricFamily("tambur_refused", "Subscribers and tokens refused.", labels=["reason"])
        for reason, count in sorted(counts.refused.items()):
            refused.add_metric([reason], count)
        tasks = len(asyncio.all_tasks()) - 1  # without the task that counts
        return [
            GaugeMetricFamily("tambur_connections", "Connected subscribers.", gauges.connections),
            GaugeMetricFamily("tambur_subscriptions", "Streams of all subscribers.", gauges.subscriptions),
            GaugeMetricFamily(
                "tambur_unsent_bytes", "Bytes that wait for subscribers to read them.", gauges.unsent_bytes
            ),
            GaugeMetricFamily(
                "tambur_held_bytes", "Memory for subscriptions and full buffers.", memory.held_bytes
            ),
            GaugeMetricFamily("tambur_tasks", "Tasks of the event loop.", tasks),
            publishes,
            queries,
            refused,
            CounterMetricFamily("tambur_deliveries", "Events written to subscribers.", counts.deliveries),
            CounterMetricFamily(
                "tambur_slow_subscribers", "Dropped because they read too slowly.", counts.slow_subscribers
            ),
            CounterMetricFamily(
                "tambur_shed_connections",
                "Closed because clients held too much memory.",
                memory.shed_connections,
            ),
            SummaryMetricFamily(
                "tambur_broker_seconds",
                "Seconds that the broker took for publishes.",
                count_value=counts.broker_calls,
                sum_value=counts.broker_s,
            ),
            *self._read_webhooks(),
        ]

    def _read_webhooks(self) -> list[Metric]:
        waiting = GaugeMetricFamily(
            "tambur_webhook_events", "Events that wait for an endpoint, in the cluster.", labels=_ENDPOINT
        )
        age = GaugeMetricFamily(
            "tambur_webhook_oldest_seconds", "Age of the oldest event that waits.", labels=_ENDPOINT
        )
        requests = CounterMetricFamily(
            "tambur_webhook_requests", "Requests to an endpoint.", labels=[*_ENDPOINT, "outcome"]
        )
        dropped = CounterMetricFamily(
            "tambur_webhook_dropped", "Events dropped: too many or too old.", labels=_ENDPOINT
        )
        for state in self._webhooks.states():
            endpoint = [state.app_id, state.origin, state.queue]
            waiting.add_metric(endpoint, state.waiting)
            age.add_metric(endpoint, state.oldest_s)
            requests.add_metric([*endpoint, "success"], state.succeeded)
            requests.add_metric([*endpoint, "failure"], state.failed)
            dropped.add_metric(endpoint, state.dropped)
        return [waiting, age, requests, dropped]
