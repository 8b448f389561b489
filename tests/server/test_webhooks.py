"""Webhooks of a real server to real receivers: section 10 of the protocol."""

from __future__ import annotations

import time

import pytest

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.webhooks import delivery
from tambur.server.webhooks.settings import Webhook

from ..support import endpoint
from ..support.app import API_KEY, APP_ID, SECRET, subscriber
from ..support.endpoint import Endpoint
from ..support.extended import Client
from ..support.faults import FaultyServer, hang
from ..support.node_process import metrics_when
from ..support.ports import free_port


def app(*endpoints: Endpoint | str) -> App:
    urls = [endpoint if isinstance(endpoint, str) else endpoint.url for endpoint in endpoints]
    return App(API_KEY, APP_ID, (SECRET,), webhooks=tuple(Webhook(url, endpoint.SECRET) for url in urls))


def publisher(server: Server) -> Tambur:
    return Tambur(API_KEY, APP_ID, SECRET, server.url)


def figures(metrics: dict[str, float], name: str) -> list[float]:
    """The values of a metric, for each endpoint."""
    return [value for key, value in metrics.items() if key.startswith(f"{name}{{")]


def test_an_app_receives_who_joined_and_who_left(stream: str) -> None:
    with Endpoint() as hook, in_background(Config(apps=(app(hook),), port=0)) as server:
        with publisher(server) as tambur, subscriber(server, stream) as alice:
            before = time.time()
            alice.enable_presence(stream, "alice", tambur.generate_presence_token)
            hook.wait(lambda events: len(events) == 1)
        joined, left = hook.wait(lambda events: len(events) == 2)
        for event, type_ in ((joined, "user.joined"), (left, "user.left")):
            assert (event.type, event.app_id, event.stream, event.user_id) == (type_, APP_ID, stream, "alice")
        assert before * 1_000_000 - 1 < joined.version < left.version
        assert joined.id != left.id


def test_a_return_within_the_linger_sends_nothing(stream: str) -> None:
    config = Config(apps=(app(hook := Endpoint()),), port=0, limits=Limits(presence_linger_s=1000))
    with hook, in_background(config) as server, publisher(server) as tambur:
        for code in (4000, 1000):
            with Client(server) as alice:
                alice.ask("subscribe", stream)
                token = tambur.generate_presence_token(stream, "alice", alice.subscriber_id)
                assert alice.ask("set_mode", "presence", stream, "alice", token) == "ok"
                alice.protocol.send_close(code)
                alice.flush()
                alice.close_code()
        events = hook.wait(lambda events: len(events) == 2)
        assert [event.type for event in events] == ["user.joined", "user.left"]


def test_a_receiver_that_was_away_gets_the_event_later(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MIN_BACKOFF_S", 0.05)
    hook = Endpoint()
    with in_background(Config(apps=(app(hook),), port=0)) as server:
        with publisher(server) as tambur, subscriber(server, stream) as alice:
            alice.enable_presence(stream, "alice", tambur.generate_presence_token)
            with hook:
                (event,) = hook.wait(lambda events: len(events) == 1)
                assert event.type == "user.joined"


def test_receivers_that_hang_delay_neither_a_publish_nor_another_receiver(stream: str) -> None:
    with FaultyServer(*[hang] * 100) as hanging, Endpoint() as hook:
        endpoints = [f"http://{hanging.host}/{number}" for number in range(25)]
        config = Config(apps=(app(*endpoints, hook),), port=0, console_port=(port := free_port()))
        with in_background(config) as server, publisher(server) as tambur:
            with subscriber(server, stream) as alice:
                for number in range(4):
                    alice.subscribe(f"{stream} {number}")
                    alice.enable_presence(f"{stream} {number}", "alice", tambur.generate_presence_token)
                hook.wait(lambda events: len(events) == 4)
                for number in range(20):
                    tambur.publish(stream, str(number))
                    assert alice.receive(60).text == str(number)
            hook.wait(lambda events: len(events) == 8)
            metrics = metrics_when(port, lambda found: sum(figures(found, "tambur_webhook_events")) == 25 * 8)
        assert len(hanging.received) <= 100
    waiting = figures(metrics, "tambur_webhook_events")
    assert sorted(waiting) == [0.0] + [8.0] * 25
    assert sum(value for name, value in metrics.items() if 'outcome="success"' in name) == 8


def test_metrics_show_failures(stream: str) -> None:
    config = Config(
        apps=(app(f"http://127.0.0.1:{free_port()}/"),), port=0, console_port=(port := free_port())
    )
    with in_background(config) as server, publisher(server) as tambur, subscriber(server, stream) as alice:
        alice.enable_presence(stream, "alice", tambur.generate_presence_token)
        metrics = metrics_when(port, lambda found: sum(figures(found, "tambur_webhook_requests_total")))
        assert figures(metrics, "tambur_webhook_events") == [1]
        assert figures(metrics, "tambur_webhook_oldest_seconds")[0] >= 0
        assert figures(metrics, "tambur_webhook_dropped_total") == [0]
        assert not any("/" in name.replace("http://", "") for name in metrics)
