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
import io
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter

from .credentials import Credentials
from .loopback import no_proxy
from .protocol.paths import BATCH_PATH, split_publish_path
from .protocol.webhooks import decode_secret, make_headers
from .publisher.client import Tambur
from .webhooks import encode, make_event

if TYPE_CHECKING:
    from .subscriber import Subscriber

_CREDENTIALS = Credentials(api_key="key", app_id="app", secret="secret", base_url="http://tambur.invalid")  # noqa: S106


class _Pair(NamedTuple):
    stream: str
    message: str


class Published(_Pair):
    """One published message: a pair of stream and message.

    Attributes:
        stream: the stream, prefix included.
        message: the text that a server would receive.
        exclude: the subscriber ID that does not receive it; ``None`` for none. Comparisons ignore it.
    """

    exclude: str | None

    def __new__(cls, stream: str, message: str, exclude: str | None = None) -> Published:  # noqa: PYI034
        made = super().__new__(cls, stream, message)
        made.exclude = exclude
        return made


class RecordingTambur(Tambur):
    """A publisher that records messages instead of sending them.

    It checks names and messages as :class:`tambur.Tambur` and a server do, one by one and in batches.

    Parameters:
        max_message_bytes: the server's limit; a longer message raises :class:`tambur.MessageTooLargeError`.
        encode: the ``encode`` of your application's :class:`tambur.Tambur`; ``None`` if it has none.

    Attributes:
        published: the messages, in the order of their publishing.
    """

    def __init__(
        self, *, max_message_bytes: int = 64 * 1024, encode: Callable[[Any], str] | None = None
    ) -> None:
        self.published: list[Published] = []
        session = requests.Session()
        session.mount("http://", _Recorder(self.published, max_message_bytes))
        super().__init__(
            _CREDENTIALS.api_key,
            _CREDENTIALS.app_id,
            _CREDENTIALS.secret,
            _CREDENTIALS.base_url,
            session=session,
            encode=encode,
        )


class _Recorder(HTTPAdapter):
    """Answers each request in place of the network."""

    def __init__(self, published: list[Published], max_message_bytes: int) -> None:
        super().__init__()
        self._published = published
        self._max_message_bytes = max_message_bytes

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        path = urlsplit(request.url or "").path.encode()
        assert isinstance(request.body, str)
        fields = dict(parse_qsl(request.body, keep_blank_values=True))
        split = split_publish_path(path)
        if split is not None:
            messages = {"": Published(split[1].decode(), fields["message"], fields.get("exclude"))}
        else:
            assert path.endswith(BATCH_PATH.encode())
            pairs = enumerate(json.loads(fields["messages"]))
            messages = {f"messages[{i}]: ": Published(*pair) for i, pair in pairs}
        for place, published in messages.items():
            size, limit = len(published.message.encode()), self._max_message_bytes
            if size > limit:
                reason = f"{place}the message has {size} bytes, at most {limit} are allowed"
                return _response(request, 413, reason)
        self._published += messages.values()
        return _response(request, 204, "")


def _response(request: requests.PreparedRequest, status: int, reason: str) -> requests.Response:
    response = requests.Response()
    response.request = request
    response.url = request.url or ""
    response.status_code = status
    response.raw = io.BytesIO(reason.encode())
    return response


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


@pytest.fixture
def tambur_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TamburServer]:
    """A real Tambur server on a free port of 127.0.0.1, new for each test."""
    from .server import Config, in_background  # noqa: PLC0415 - needs the server's extra

    monkeypatch.setenv("no_proxy", no_proxy())  # the tested application publishes to this machine, too
    with (
        in_background(Config.from_credentials(_CREDENTIALS, port=0)) as server,
        contextlib.ExitStack() as stack,
    ):
        yield TamburServer(_CREDENTIALS.at(server.url).to_url(), stack)


@pytest.fixture
def tambur_recorder() -> Iterator[RecordingTambur]:
    """A publisher that records messages instead of sending them."""
    with RecordingTambur() as recorder:
        yield recorder
