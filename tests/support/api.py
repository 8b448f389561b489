"""The API without a network."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tambur.protocol import oauth as signing
from tambur.server import App, Config, Limits
from tambur.server.api.auth import RefusedError
from tambur.server.api.batch import BatchHandler, Delivered
from tambur.server.api.publish import PublishHandler
from tambur.server.broker import Outcome, Publication, Published
from tambur.server.broker.memory import MemoryBackend
from tests.support.broker import nobody_asks

NOW = 1_353_628_800
FORM = "application/x-www-form-urlencoded"
HOST = "tambur.example"


CONFIG = Config(
    apps=(
        App("key", "app", ("hunter2", "old-hunter2")),
        App("key2", "app", ("hunter3",)),
        App("key", "slow", ("hunter2",), max_publishes_per_s=1),
    ),
    limits=Limits(max_message_bytes=100, max_claims=8),
)


class Api:
    """Signs requests, right or wrong in any way, and hands them to their handlers."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.delivered: list[Publication] = []
        self.now = float(NOW)
        self.backend = MemoryBackend(max_claims=config.limits.max_claims, monotonic=lambda: self.now)
        self.broker = self.backend.broker
        self.publishing = PublishHandler(config, self.broker, clock=lambda: self.now)
        self.batches = BatchHandler(config, self.broker, clock=lambda: self.now)
        asyncio.run(self._start())

    async def _start(self) -> None:
        await self.backend.start(self.delivered.append, nobody_asks)
        for app in ("app", "slow"):
            for stream in ("test", "a/b", "x"):
                for key in ("key", "key2"):
                    await self.broker.subscribe(App(key, app, ("s",)).key, stream)

    def body(
        self, *, path: str = "/app/app/stream/test", secret: str = "hunter2", url: str = "", **changes: Any
    ) -> bytes:
        parameters = {
            "api_version": "1.0",
            "message": "Hello",
            "oauth_nonce": "nonce",
            "oauth_timestamp": str(NOW),
            "oauth_version": "1.0",
            "oauth_signature_method": "HMAC-SHA1",
            "oauth_consumer_key": "key",
        } | changes
        canonical = signing.canonical_query_string((k, v) for k, v in parameters.items() if v is not None)
        base_string = signing.signature_base_string(
            signing.base_string_url(url or f"http://{HOST}{path}"), canonical
        )
        signature = signing.percent_encode(signing.sign(base_string, secret))
        return f"{canonical}&oauth_signature={signature}".encode()

    def send(
        self,
        body: bytes,
        path: str = "/app/app/stream/test",
        content_type: str = FORM,
        host: str = HOST,
        *,
        debug: bool = True,
    ) -> bool:
        """Returns whether it is a replay."""
        published: Published | Delivered
        if path.endswith("/batch"):
            app = self.batches.target(host, path.encode())
            published = asyncio.run(self.batches.publish(app, content_type, body, debug=debug))
        else:
            target = self.publishing.target(host, path.encode())
            published = asyncio.run(self.publishing.publish(target, content_type, body, debug=debug))
        assert published.outcome in {Outcome.DELIVERED, Outcome.REPLAYED}
        return published.outcome is Outcome.REPLAYED

    def publish(self, path: str = "/app/app/stream/test", **changes: Any) -> bool:
        return self.send(self.body(path=path, **changes), path)

    def refusal(self, path: str = "/app/app/stream/test", **changes: Any) -> RefusedError:
        return self.refusal_of(self.body(path=path, **changes), path)

    def refusal_of(self, body: bytes, *args: Any, **options: Any) -> RefusedError:
        before = len(self.delivered)
        with pytest.raises(RefusedError) as caught:
            self.send(body, *args, **options)
        assert len(self.delivered) == before
        return caught.value

    @property
    def messages(self) -> list[Any]:
        return [json.loads(p.event)[1:] for p in self.delivered]
