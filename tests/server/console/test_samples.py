"""The figures of the console."""

from __future__ import annotations

from tambur.protocol.names import Kind
from tambur.server.broker import AppKey, Outcome, Publication, Published
from tambur.server.console.samples import INTERVAL_S, KEPT_SAMPLES, Sampler, pause_s
from tambur.server.console.watch import Watch
from tambur.server.webhooks.delivery import Webhooks

from ...support.node import Node, run, settle

PUBLICATION = Publication(AppKey("key", "app"), Kind.PUBLIC, "s", b'["msg","s","public","x"]')


def test_a_sample_has_rates_counts_and_percentiles_since_the_one_before() -> None:
    async def scenario(node: Node) -> None:
        now = 100.0
        counts = node.hub.counts
        watch = Watch(counts)
        watch.start()
        counts.publishes[204] = 1000
        sampler = Sampler(node.hub, Webhooks([], node.backend.webhooks), watch, lambda: now)
        node.client("1", "s", "t")
        node.client("2", "s")
        await settle()
        counts.publishes[204] += 30
        counts.publishes[401] += 1
        counts.deliveries += 60
        counts.slow_subscribers += 2
        counts.count_hello("key", is_resumed=True, complete=True)
        counts.count_hello("key", is_resumed=False, complete=False)
        counts.log_refusal("publish refused", {"status": 401})
        for milliseconds in range(1, 101):
            counts.count_publish(PUBLICATION, Published(Outcome.DELIVERED), 0.0, milliseconds / 1000)
        now = 102.0
        sampler.take()
        (sample,) = sampler.samples
        assert sample._asdict() == {
            "at": 102.0,
            "connections": 2,
            "subscriptions": 3,
            "publishes": 15.0,
            "deliveries": 30.0,
            "refusals": 1,
            "waiting_bytes": 0,
            "slow": 2,
            "broker_p50_ms": 50.0,
            "broker_p99_ms": 99.0,
            "resumed": 1,
            "not_resumed": 1,
            "incomplete": 1,
            "webhooks": 0,
        }
        now = 104.0
        sampler.take()
        later = sampler.samples.since(1)[0]
        assert later.broker_p50_ms is later.broker_p99_ms is None
        assert (later.publishes, later.refusals, later.slow) == (0.0, 0, 0)

    run(scenario)


def test_samples_of_all_nodes_are_at_multiples_of_the_interval() -> None:
    assert pause_s(100.5) == INTERVAL_S - 0.5
    assert pause_s(101.75) == INTERVAL_S + 0.25  # a timer that was early
    assert pause_s(102.0) == INTERVAL_S


def test_ten_minutes_are_kept() -> None:
    async def scenario(node: Node) -> None:
        now = 0.0
        sampler = Sampler(node.hub, Webhooks([], node.backend.webhooks), Watch(node.hub.counts), lambda: now)
        for _ in range(KEPT_SAMPLES + 5):
            now += 2
            sampler.take()
        kept = list(sampler.samples)
        assert kept[-1].at - kept[0].at == 600

    run(scenario)
