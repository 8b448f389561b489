"""Metrics of a server for Prometheus: ``pip install 'tambur[metrics]>=1'``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .hub import Hub
from .webhooks.delivery import Webhooks

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        Metric,
        SummaryMetricFamily,
    )
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "metrics need prometheus-client, which is not installed; pip install 'tambur[metrics]>=1'",
        name=error.name,
    ) from None

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ENDPOINT = ["app", "origin", "endpoint"]


def exposition(hub: Hub, webhooks: Webhooks) -> bytes:
    """The metrics in the text format of Prometheus.

    Call this in the event loop of the hub: all values are read in one turn, so they fit together.

    Parameters:
        hub: the hub of the server.
        webhooks: its endpoints of webhooks.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(hub, webhooks))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, hub: Hub, webhooks: Webhooks) -> None:
        self._hub = hub
        self._webhooks = webhooks

    def describe(self) -> Iterable[Metric]:
        return ()  # otherwise registering would collect

    def collect(self) -> Iterable[Metric]:
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
        sessions = CounterMetricFamily("tambur_sessions", "Session keys that came back.", labels=["outcome"])
        sessions.add_metric(["resumed"], counts.resumed_sessions)
        sessions.add_metric(["refused"], counts.refused_sessions)
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
            sessions,
            CounterMetricFamily(
                "tambur_incomplete", "Answers to clients that messages may be missing.", counts.incomplete
            ),
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
