"""A publisher for tests that sends nothing. :mod:`tambur.testing` has a fixture with it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import HTTPAdapter

from .credentials import Credentials
from .protocol.paths import BATCH_PATH, split_publish_path, split_query_path
from .publisher.client import Tambur

CREDENTIALS = Credentials(api_key="key", app_id="app", secret="secret", base_url="http://tambur.invalid")  # noqa: S106


class _Pair(NamedTuple):
    stream: str
    message: str


class Published(_Pair):
    """One published message: a pair of stream and message.

    Attributes:
        stream: the stream, prefix included.
        message: the text that a server would receive.
        exclude: the subscriber ID that does not receive it; ``None`` for none. Comparisons ignore it.
        published_at: when it was published, in seconds since 1970. Comparisons ignore it, too.
    """

    exclude: str | None
    published_at: float

    def __new__(cls, stream: str, message: str, exclude: str | None = None) -> Published:  # noqa: PYI034
        made = super().__new__(cls, stream, message)
        made.exclude = exclude
        made.published_at = time.time()
        return made


class Disconnected(NamedTuple):
    """One call of :meth:`tambur.Tambur.disconnect`.

    Attributes:
        subscriber_id: the subscriber; ``None`` for a user.
        user_id: the user; ``None`` for a subscriber.
    """

    subscriber_id: str | None
    user_id: str | None


class RecordingTambur(Tambur):
    """A publisher that records messages and disconnects instead of sending them.

    It checks names and messages as :class:`tambur.Tambur` and a server do, one by one and in batches. It
    answers queries from its attributes: ``history`` has the published messages, ``users`` has ``present``,
    and ``streams`` has the streams of ``present``, with one subscriber for each user.

    Parameters:
        max_message_bytes: the server's limit; a longer message raises :class:`tambur.MessageTooLargeError`.
        encode: the ``encode`` of your application's :class:`tambur.Tambur`; ``None`` if it has none.

    Attributes:
        published: the messages, in the order of their publishing.
        disconnected: the disconnects, in their order. A disconnected user leaves all streams of ``present``.
            The result is 1 if there was any, otherwise 0.
        present: for each stream, who is present. A test sets it; at first it is empty.
    """

    def __init__(
        self, *, max_message_bytes: int = 64 * 1024, encode: Callable[[Any], str] | None = None
    ) -> None:
        self.published: list[Published] = []
        self.disconnected: list[Disconnected] = []
        self.present: dict[str, list[str]] = {}
        session = requests.Session()
        session.mount("http://", _Recorder(self, max_message_bytes))
        super().__init__(
            CREDENTIALS.api_key,
            CREDENTIALS.app_id,
            CREDENTIALS.secret,
            CREDENTIALS.base_url,
            session=session,
            encode=encode,
        )


class _Recorder(HTTPAdapter):
    """Answers each request in place of the network."""

    def __init__(self, tambur: RecordingTambur, max_message_bytes: int) -> None:
        super().__init__()
        self._tambur = tambur
        self._max_message_bytes = max_message_bytes

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        path = urlsplit(request.url or "").path.encode()
        assert isinstance(request.body, str)
        fields = dict(parse_qsl(request.body, keep_blank_values=True))
        split = split_publish_path(path)
        if split is not None:
            messages = {"": Published(split[1].decode(), fields["message"], fields.get("exclude"))}
        elif path.endswith(BATCH_PATH.encode()):
            pairs = enumerate(json.loads(fields["messages"]))
            messages = {f"messages[{i}]: ": Published(*pair) for i, pair in pairs}
        else:
            return _response(request, 200, json.dumps(self._ask(path, fields)))
        for place, published in messages.items():
            size, limit = len(published.message.encode()), self._max_message_bytes
            if size > limit:
                reason = f"{place}the message has {size} bytes, at most {limit} are allowed"
                return _response(request, 413, reason)
        self._tambur.published += messages.values()
        return _response(request, 204, "")

    # Queries: section 9 of the protocol. Each has one page.

    def _ask(self, path: bytes, fields: dict[str, str]) -> dict[str, object]:
        present = self._tambur.present
        split = split_query_path(path)
        assert split is not None
        match split:
            case _, "users", bytes(stream):
                return {"users": sorted(set(present.get(stream.decode(), ()))), "after": None}
            case _, "history", bytes(stream):
                return self._history(stream.decode(), int(fields["limit"]), fields.get("since"))
            case _, "streams", None:
                users = {name: len(set(present[name])) for name in sorted(present)}
                return {
                    "streams": [
                        {"stream": name, "subscribers": count, "users": count}
                        for name, count in users.items()
                        if count and name.startswith(fields.get("prefix", ""))
                    ],
                    "after": None,
                }
            case _:
                return {"disconnected": self._disconnect(fields.get("subscriber_id"), fields.get("user_id"))}

    def _history(self, stream: str, limit: int, since: str | None) -> dict[str, object]:
        # The position of a message is its number, from 1.
        published = self._tambur.published
        end = str(len(published))
        kinds = {stream: "public", f"auth:{stream}": "auth"}
        kept = [
            {
                "kind": kinds[message.stream],
                "message": message.message,
                "position": str(number),
                "published_at": message.published_at,
            }
            for number, message in enumerate(published, 1)
            if message.stream in kinds
        ]
        if since is None:
            return {
                "messages": kept[-limit:],
                "position": end,
                "complete": True,
                "more": len(kept) > limit,
            }
        if since not in map(str, range(len(published) + 1)):
            return {"messages": [], "position": end, "complete": False, "more": False}
        later = [message for message in kept if int(str(message["position"])) > int(since)]
        more = len(later) > limit
        position = later[limit - 1]["position"] if more else end
        return {"messages": later[:limit], "position": position, "complete": True, "more": more}

    def _disconnect(self, subscriber_id: str | None, user_id: str | None) -> int:
        self._tambur.disconnected.append(Disconnected(subscriber_id, user_id))
        found = [users for users in self._tambur.present.values() if user_id in users]
        for users in found:
            users[:] = [user for user in users if user != user_id]
        return int(bool(found))


def _response(request: requests.PreparedRequest, status: int, reason: str) -> requests.Response:
    response = requests.Response()
    response.request = request
    response.url = request.url or ""
    response.status_code = status
    response.raw = io.BytesIO(reason.encode())
    return response
