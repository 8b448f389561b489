"""Delivering queued events, on a clock that only a test moves."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import pytest

from tambur.server import App
from tambur.server.broker import BrokerUnavailableError
from tambur.server.broker.memory_webhooks import MemoryWebhooks
from tambur.server.broker.webhooks import Taken, queue_name
from tambur.server.webhooks.client import RequestFailedError
from tambur.server.webhooks.delivery import MAX_REQUESTS, EndpointState, Webhooks
from tambur.server.webhooks.settings import Webhook
from tambur.webhooks import Event, parse

from ...support.node import Loop, pass_time, settle, until

SECRET = "whsec_" + secrets.token_hex(16)
FIRST, SECOND = (Webhook(f"https://{host}/hidden?token=hunter2", SECRET) for host in ("first", "second"))
APP = App("key", "chat", ("s",), webhooks=(FIRST, SECOND))
DAY_S = 24 * 3600


class Request(NamedTuple):
    """One request that waits for its answer."""

    webhook: Webhook
    event: Event
    answer: asyncio.Future[int]


class Endpoints:
    """They keep the requests; a test answers them. The endpoint ``second`` accepts everything immediately."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.waiting: list[Request] = []
        self.seen: list[Event] = []
        self.accepted: list[Event] = []
        self.end_slowly = False  # whether a request takes some turns to be cancelled

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        event = parse(body, headers, SECRET, now=self.now())
        if url == SECOND.url:
            self.accepted.append(event)
            return 200
        self.seen.append(event)
        request = Request(FIRST, event, asyncio.get_running_loop().create_future())
        self.waiting.append(request)
        try:
            return await request.answer
        finally:
            if self.end_slowly:
                await settle()

    def answer(self, outcome: int | Exception) -> None:
        """Answer the request that waits for longest."""
        request = self.waiting.pop(0)
        if isinstance(outcome, int):
            request.answer.set_result(outcome)
        else:
            request.answer.set_exception(outcome)


class Setting(NamedTuple):
    """The parts of a scenario."""

    queues: MemoryWebhooks
    endpoints: Endpoints
    webhooks: Webhooks

    def join(self, user: str = "alice") -> None:
        self.queues.add(APP.key, "room", user, is_up=True)

    @property
    def state(self) -> EndpointState:
        return self.webhooks.states()[0]


def run(scenario: Callable[[Setting], Awaitable[None]]) -> None:
    loop = Loop()

    async def whole() -> None:
        queues = MemoryWebhooks([APP], max_events=100, clock=loop.time)
        endpoints = Endpoints(loop.time)
        webhooks = Webhooks([APP], queues, send=endpoints.send, clock=loop.time)
        webhooks.start()
        await settle()
        try:
            await scenario(Setting(queues, endpoints, webhooks))
        finally:
            await webhooks.close()
        assert len(asyncio.all_tasks()) == 1

    try:
        loop.run_until_complete(whole())
    finally:
        loop.close()


def test_an_event_is_sent_immediately_and_once() -> None:
    async def scenario(setting: Setting) -> None:
        setting.join()
        await settle()
        (event,) = setting.endpoints.seen
        assert (event.type, event.app_id, event.stream, event.user_id) == (
            "user.joined",
            "chat",
            "room",
            "alice",
        )
        assert event.version == 1_000_000_000
        setting.endpoints.answer(204)
        await settle()
        for _ in range(10):
            await pass_time(100)
        assert setting.endpoints.seen == [event]
        assert setting.state[3:] == (0, 0, 1, 0, 0)

    run(scenario)


@pytest.mark.parametrize(
    "failure", [199, 300, 302, 400, 500, RequestFailedError("no answer within 10 s"), KeyError("hunter2")]
)
def test_anything_but_2xx_is_tried_again_with_the_same_id(failure: int | Exception) -> None:
    async def scenario(setting: Setting) -> None:
        setting.join()
        await settle()
        setting.endpoints.answer(failure)
        await settle()
        await pass_time(0.9)
        assert setting.endpoints.waiting == []
        await pass_time(0.2)
        first, second = setting.endpoints.seen
        assert first == second
        assert setting.state.oldest_s == pytest.approx(1.1)
        assert (setting.state.waiting, *setting.state[5:]) == (1, 0, 1, 0)
        setting.endpoints.answer(299)
        await settle()
        assert setting.state[3:] == (0, 0, 1, 1, 0)

    run(scenario)


def test_the_backoff_grows_to_five_minutes_and_ends_after_a_day(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(setting: Setting) -> None:
        loop = asyncio.get_running_loop()
        setting.join()
        await settle()
        began_at = tried_at = loop.time()
        pauses = []
        while loop.time() < began_at + DAY_S + 400:
            if setting.endpoints.waiting:
                pauses.append(loop.time() - tried_at)
                tried_at = loop.time()
                setting.endpoints.answer(500)
                await settle()
            await pass_time(1 if loop.time() < began_at + 30 else 60)
        assert pauses[:8] == [0, 1, 1, 1, 2, 3, 4, 6]
        assert 300 <= max(pauses) <= 360
        assert tried_at > began_at + DAY_S - 360
        assert setting.state.waiting == 0
        assert setting.state.dropped == 1

    with caplog.at_level(logging.INFO):
        run(scenario)
    assert (
        "webhook events dropped, too many or too old app=chat endpoint=https://first events=1" in caplog.text
    )


def test_a_receiver_that_hangs_has_few_requests_and_delays_no_other() -> None:
    async def scenario(setting: Setting) -> None:
        for number in range(50):
            setting.join(str(number))
        await until(lambda: len(setting.endpoints.accepted) == 50)
        assert {event.user_id for event in setting.endpoints.accepted} == {
            str(number) for number in range(50)
        }
        assert len(setting.endpoints.waiting) == MAX_REQUESTS
        for _ in range(50):
            setting.endpoints.answer(200)
            await settle()
        assert {event.user_id for event in setting.endpoints.seen} == {str(number) for number in range(50)}
        assert len(setting.endpoints.seen) == 50

    run(scenario)


def test_the_events_of_a_user_are_sent_one_after_another() -> None:
    async def scenario(setting: Setting) -> None:
        for is_up in (True, False):
            setting.queues.add(APP.key, "room", "alice", is_up=is_up)
        setting.queues.add(APP.key, "other room", "alice", is_up=True)
        await settle()
        seen = setting.endpoints.seen
        assert [(event.stream, event.type) for event in seen] == [
            ("room", "user.joined"), ("other room", "user.joined")
        ]  # fmt: skip
        setting.endpoints.answer(200)
        await settle()
        assert (seen[2].stream, seen[2].type) == ("room", "user.left")
        for _ in range(2):
            setting.endpoints.answer(200)
        await settle()
        assert setting.state[3:] == (0, 0, 3, 0, 0)

    run(scenario)


def test_an_unavailable_broker_is_asked_again() -> None:
    async def scenario(setting: Setting) -> None:
        take = setting.queues.take
        outcomes: list[Exception] = [BrokerUnavailableError("away", 1), KeyError("bug")]

        async def fail(queue: str, count: int) -> Taken:
            if outcomes:
                raise outcomes.pop(0)
            return await take(queue, count)

        setting.queues.take = fail  # type: ignore[method-assign]
        setting.join()
        for _ in range(4):
            await pass_time(5)
        assert setting.endpoints.seen
        setting.endpoints.answer(200)
        await settle()
        assert setting.state.waiting == 0

    run(scenario)


def test_an_event_whose_end_cannot_be_noted_is_sent_again() -> None:
    async def scenario(setting: Setting) -> None:
        finish = setting.queues.finish

        async def fail(queue: str, version: int) -> None:
            raise BrokerUnavailableError("away", 1)

        setting.queues.finish = fail  # type: ignore[method-assign]
        setting.join()
        await settle()
        setting.endpoints.answer(200)
        await settle()
        setting.queues.finish = finish  # type: ignore[method-assign]
        for _ in range(4):
            await pass_time(5)
        first, second = setting.endpoints.seen
        assert first == second

    run(scenario)


def test_a_server_that_stops_takes_no_more_and_returns_what_it_sends() -> None:
    async def scenario(setting: Setting) -> None:
        for user in ("alice", "bob"):
            setting.join(user)
        await settle()
        setting.webhooks.stop()
        setting.join("carol")
        await settle()
        setting.endpoints.answer(200)
        await settle()
        assert [event.user_id for event in setting.endpoints.seen] == ["alice", "bob"]
        await setting.webhooks.close()
        taken = await setting.queues.take(queue_name(APP.key, FIRST.url), 10)
        assert [event.user_id for event in taken.events] == ["bob", "carol"]

    run(scenario)


def test_a_server_stops_while_an_event_waits_for_the_one_before() -> None:
    errors: list[dict[str, Any]] = []

    async def scenario(setting: Setting) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        setting.endpoints.end_slowly = True
        setting.join()
        setting.join()
        await settle()
        await setting.webhooks.close()
        await settle()

    run(scenario)
    assert errors == []


def test_a_server_stops_in_the_moment_in_which_an_event_comes() -> None:
    async def scenario(setting: Setting) -> None:
        setting.join()
        await setting.webhooks.close()
        assert setting.endpoints.seen == []

    run(scenario)


def test_the_log_has_changes_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(setting: Setting) -> None:
        for outcome in (500, 500, 200, 200):
            setting.join()
            await settle()
            while setting.endpoints.waiting:
                setting.endpoints.answer(outcome)
                await settle()

    with caplog.at_level(logging.DEBUG, "tambur"):
        run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        'webhook not accepted, trying again app=chat endpoint=https://first reason="status 500"',
        "webhooks are accepted again app=chat endpoint=https://first",
    ]
    assert "hunter2" not in caplog.text
    assert SECRET not in caplog.text
