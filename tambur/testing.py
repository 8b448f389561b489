"""Fixtures for the tests of applications. pytest loads them from the installed package.

With a real server on a free port (``pip install 'tambur[server,subscriber]>=1'``)::

    def test_an_order_reaches_the_kitchen(tambur_server, client, monkeypatch):
        monkeypatch.setenv("TAMBUR_URL", tambur_server.url)
        kitchen = tambur_server.subscriber("kitchen")
        client.post("/orders", {"dish": "soup"})
        assert kitchen.receive(timeout=5).text == "soup"

Without a server, where the published messages are all that a test needs::

    def test_an_order_is_published(tambur_recorder, monkeypatch):
        monkeypatch.setattr("shop.views.tambur", tambur_recorder)
        ...
        assert tambur_recorder.published == [("kitchen", "soup")]
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from .loopback import no_proxy
from .protocol.webhooks import decode_secret, make_headers
from .publisher.client import Tambur
from .recording import CREDENTIALS, Disconnected, Published, RecordingTambur
from .webhooks import encode, make_event

if TYPE_CHECKING:
    from .subscriber import Subscriber

__all__ = [
    "Disconnected",
    "Published",
    "RecordingTambur",
    "TamburServer",
    "WebhookRequest",
    "make_webhook",
]


class TamburServer:
    """A server with one app, and its clients, for one test.

    Attributes:
        url: the value for ``TAMBUR_URL``.
        publisher: a publisher for the app.
    """

    def __init__(self, url: str, stack: contextlib.ExitStack) -> None:
        self.url = url
        self.publisher = stack.enter_context(Tambur.from_url(url))
        self._stack = stack

    def subscriber(self, *streams: str) -> Subscriber:
        """Connect a subscriber. The end of the test closes it.

        Parameters:
            streams: the streams to which it is subscribed once this returns.
        """
        from .subscriber import Subscriber  # noqa: PLC0415 - needs the subscriber's extra

        made = self._stack.enter_context(Subscriber.from_url(self.url))
        for stream in streams:
            made.subscribe(stream)
        return made


class WebhookRequest(NamedTuple):
    """A signed request, for the tests of a view that receives webhooks.

    Attributes:
        body: its body.
        headers: its headers.
    """

    body: bytes
    headers: dict[str, str]


def make_webhook(
    secret: str,
    type_: str,
    stream: str,
    user_id: str,
    *,
    app_id: str = "app",
    version: int | None = None,
) -> WebhookRequest:
    """Make the request that a server would send to your app.

    Parameters:
        secret: that of the webhook, ``whsec_…``.
        type_: ``"user.joined"`` or ``"user.left"``.
        stream: the stream.
        user_id: the user who joined or left.
        app_id: the app.
        version: that of the event; ``None`` for the microseconds since 1970.
    """
    now = time.time()
    if version is None:
        version = int(now * 1_000_000)
    event = make_event(type_, app_id, stream, user_id, version)
    body = encode(event)
    return WebhookRequest(body, make_headers(decode_secret(secret), event.id, int(now), body))


if find_spec("pytest") is not None:  # Tests with unittest alone use the rest of this module.
    import pytest

    __all__ += ["tambur_recorder", "tambur_server"]

    @pytest.fixture
    def tambur_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TamburServer]:
        """A real Tambur server on a free port of 127.0.0.1, new for each test."""
        from .server import Config, in_background  # noqa: PLC0415 - needs the server's extra

        monkeypatch.setenv("no_proxy", no_proxy())  # the tested application publishes to this machine, too
        with (
            in_background(Config.from_credentials(CREDENTIALS, port=0)) as server,
            contextlib.ExitStack() as stack,
        ):
            yield TamburServer(CREDENTIALS.at(server.url).to_url(), stack)

    @pytest.fixture
    def tambur_recorder() -> Iterator[RecordingTambur]:
        """A publisher that records messages instead of sending them."""
        with RecordingTambur() as recorder:
            yield recorder
