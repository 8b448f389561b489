"""How users call the public interface, with the types that they rely on: mypy checks this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Callable

import requests

from tambur import (
    AppNotFoundError,
    CommandRefusedError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidMessageError,
    InvalidNameError,
    MessagesMissedError,
    MessageTooLargeError,
    PublishError,
    RateLimitedError,
    RejectedError,
    SubscriberClosedError,
    SubscriberTimeoutError,
    Tambur,
    TamburError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
    WebhookVerificationError,
    __version__,
    webhooks,
)
from tambur.server import App, Config, Limits, Server, in_background, serve
from tambur.subscriber import Message, Subscriber, Subscription

version: str = __version__


def show(done: int, total: int) -> None: ...


def receiver(body: bytes, headers: dict[str, str]) -> tuple[str, str, int]:
    try:
        event: webhooks.Event = webhooks.parse(body, headers, "whsec_")
    except WebhookVerificationError:
        return "", "", 0
    return event.stream, event.user_id, event.version


def publisher() -> None:
    tambur: Tambur = Tambur("key", "app", "secret")
    tambur = Tambur("key", "app", "secret", "host:8080", ssl=True, timeout=3, max_retries=0, pool_maxsize=1)
    tambur = Tambur("key", "app", "secret", api_host="host", timeout=(3.05, 10.0), session=requests.Session())
    tambur = Tambur("key", "app", "secret", "host", encode=str)
    tambur = Tambur.from_url("http://key:secret@host/app/app", max_retries=1)
    tambur = Tambur.from_env()
    published: bool = tambur.publish("news", "text")
    published = tambur.publish("news", b"text", timeout=1.5)
    published = tambur.publish("news", {"any": ["JSON", 1, None]}, timeout=(1, 2))
    published = tambur.publish("news", "text", exclude="id") or tambur.publish("news", "text", exclude=None)
    outcomes: list[bool | TamburError] = tambur.publish_many([("news", "text")], timeout=3)
    outcomes = tambur.publish_many((("s", i) for i in range(3)), progress=show)
    tambur = Tambur(b"key", 7, b"secret", b"host")
    published = tambur.publish(b"news", "text") and tambur.publish(7, "text")
    token: str = tambur.generate_auth_token("news", "id")
    token = tambur.generate_presence_token(b"news", 7, b"id")
    token = tambur.generate_presence_token("news", "alice", "id")
    token = tambur.generate_direct_token(stream="news", user_id="alice", subscriber_id="id")
    names: tuple[str, str, str, str, str] = (
        tambur.api_key, tambur.app_id, tambur.secret, tambur.api_host, tambur.url,
    )  # fmt: skip
    with tambur as same:
        tambur = same
    tambur.url = "https://host/app/app"
    answer = requests.post(f"{tambur.url}/stream/news", data={"message": "x"}, auth=tambur.oauth, timeout=3)
    tambur.close()
    del answer
    del published, outcomes, token, names


def errors(error: RejectedError) -> None:
    for configuration in (ConfigurationError, InvalidNameError, InvalidMessageError):
        value_error: type[ValueError] = configuration
    foreign: list[type[requests.RequestException]] = [PublishError]
    connection: type[requests.ConnectionError] = ConnectionFailedError
    timeout: type[requests.Timeout] = TimedOutError
    http: type[requests.HTTPError] = RejectedError
    rejected: list[type[RejectedError]] = [
        UnauthorizedError, AppNotFoundError, MessageTooLargeError, RateLimitedError, UnavailableError,
    ]  # fmt: skip
    every: list[type[TamburError]] = [
        PublishError, CommandRefusedError, SubscriberClosedError, SubscriberTimeoutError,
    ]  # fmt: skip
    stream: str = error.stream
    attempts: int = error.attempts
    delivered: bool = error.may_have_been_delivered
    status: int = error.status
    reason: str = error.reason
    retry_after: float | None = error.retry_after
    del value_error, foreign, connection, timeout, http, rejected, every
    del stream, attempts, delivered, status, reason, retry_after


def subscriber(tambur: Tambur) -> None:
    with Subscriber("key", "app", "host", ssl=True, timeout=5, reconnect=True) as one:
        subscription: Subscription = one.subscribe("news")
        subscription = one.subscribe("news", since="position")
        subscription = one.subscribe("news", last=10, auth=tambur.generate_auth_token)
        facts: tuple[str | None, bool, int] = subscription
        facts = (subscription.position, subscription.complete, subscription.replayed)
        one.enable_auth("news", tambur.generate_auth_token)
        one.enable_presence("news", "alice", "token")
        make: Callable[[str, str, str], str] = tambur.generate_direct_token
        one.enable_direct("news", "alice", make)
        one.send_direct("news", "bob", "text")
        one.disable_auth("news")
        one.unsubscribe("news")
        try:
            message: Message = one.receive(timeout=1)
        except MessagesMissedError as missed:
            streams: tuple[str, ...] = missed.streams
            del streams
        for message in one:
            fields: tuple[str, str, str, str | None] = message
            fields = (message.stream, message.kind, message.text, message.user_id)
            del fields
            position: str | None = message.position
            del position
        identifier: str = one.subscriber_id
        del identifier, facts
    Subscriber.from_env(reconnect=True).close()
    Subscriber.from_url("http://key:secret@host/app/app").close()


def server() -> None:
    app = App(
        api_key="key",
        app_id="app",
        secrets=("secret",),
        allowed_origins=("https://www.example.com",),
        max_publishes_per_s=10,
        long_polling=False,
    )
    config = Config(apps=(app,), host="127.0.0.1", port=0, limits=Limits(max_message_bytes=1024))
    config = Config.from_toml("tambur.toml")
    with in_background(config) as running:
        url: str = running.url
        del url
    made = Server(config)
    made.stop()
    made.run(on_ready=lambda: None)
    serve(config)
