"""A client that polls with a POST: section 7 of the protocol."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Sequence
from typing import Any

from .app import API_KEY, APP_ID
from .wire import Answer, Listening, ask, begin_two


def post(
    body: object, *headers: str, app_id: str = APP_ID, method: str = "POST", path: str | None = None
) -> bytes:
    """A request; a body that is not ``bytes`` is written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"{method} {path or f'/comet/{API_KEY}/{app_id}'} HTTP/1.1",
        "Host: h",
        "Content-Type: text/plain;charset=UTF-8",
        f"Content-Length: {len(data)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


def content(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    members = json.loads(answer.body)
    assert set(members) == {"poll", "n", "frames"}
    return dict(members)


class ExtendedPoller:
    """A client that polls, extended unless ``hello`` is ``None``.

    Attributes:
        n: the number of the last frame that it has.
        frames: those that no method has returned yet.
        hello: the content of the ack of its ``hello``.
    """

    def __init__(
        self,
        server: Listening,
        *,
        app_id: str = APP_ID,
        hello: dict[str, Any] | None = None,
        plain: bool = False,
    ) -> None:
        self.server = server
        self._app_id = app_id
        self._handles = itertools.count(1)
        self.frames: list[Any] = []
        self.n = 0
        self.hello: Any = None
        self.secret: str | None = None
        first = [] if plain else [["hello", next(self._handles), hello or {}]]
        self.take(content(ask(server, self.request(first))))
        greeting = self.frames.pop(0)
        assert greeting.startswith("id:")
        self.subscriber_id = greeting.removeprefix("id:")
        if not plain:
            self.hello = self.ack(1)

    def body(self, send: Sequence[object] | None = None, **more: Any) -> dict[str, Any]:
        known = {} if self.secret is None else {"poll": self.secret, "n": self.n}
        return known | ({} if send is None else {"send": send}) | more

    def request(self, send: Sequence[object] | None = None, **more: Any) -> bytes:
        return post(self.body(send, **more), app_id=self._app_id)

    def take(self, members: dict[str, Any]) -> list[Any]:
        """Take the frames of an answer that are new; return all that it had."""
        assert self.secret in (None, members["poll"])
        self.secret = members["poll"]
        frames = members["frames"]
        new = members["n"] - self.n
        if new > 0:
            self.frames += frames[-new:]
            self.n = members["n"]
        return list(frames)

    def send(self, *commands: object, **more: Any) -> list[Any]:
        """Send commands, and return the frames of the answer."""
        return self.take(content(ask(self.server, self.request(list(commands), **more))))

    def poll(self) -> list[Any]:
        return self.take(content(ask(self.server, self.request())))

    def ack(self, handle: int) -> Any:
        """Poll until a command is answered, and return the content of its ack. Other frames stay."""
        while not (acks := [f for f in self.frames if f[0] == "ack" and f[1] == handle]):
            self.poll()
        self.frames.remove(acks[0])
        return acks[0][3] if len(acks[0]) == 4 else acks[0][2]

    def ask(self, word: str, *arguments: Any) -> Any:
        """Send a command and return the content of its ack."""
        handle = next(self._handles)
        self.send([word, handle, *arguments])
        return self.ack(handle)

    def next(self) -> Any:
        """The next frame, polling for it if necessary."""
        while not self.frames:
            self.poll()
        return self.frames.pop(0)

    def waiting_poll(self) -> socket.socket:
        """Begin a poll, and return once the server has it."""
        answer, waiting = begin_two((self.server, self.request()), (self.server, self.request()))
        assert content(answer)["frames"] == []
        return waiting
