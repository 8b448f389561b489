"""A client that polls."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import quote

from .wire import SUBSCRIBE_PATH, Answer, Listening, ask, connect, read_answer


def request(
    path: str = "", query: str = "", *, instance: str = "7", callback: str = "tambur.answer"
) -> bytes:
    line = f"GET /comet{SUBSCRIBE_PATH}{path}?instance={instance}&callback={callback}&ts=1{query}"
    return f"{line} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def value(answer: Answer) -> Any:
    """The arguments of the call to the page's function."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/javascript"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    if not answer.body:
        return None
    text = answer.body.decode("ascii")
    assert text.startswith("/**/tambur.answer(7, ")
    assert text.endswith(")")
    return json.loads(text.removeprefix("/**/tambur.answer(7, ").removesuffix(")"))


class Poller:
    """A client that polls, as a page would."""

    def __init__(self, server: Listening) -> None:
        self.server = server
        greeting = value(ask(server, request()))
        assert greeting.startswith("id:")
        self.subscriber_id = greeting.removeprefix("id:")
        self.handle = 0

    def request(self, query: str = "") -> bytes:
        return request(f"/{self.subscriber_id}", query)

    def poll(self) -> Any:
        return value(ask(self.server, self.request()))

    def send(self, text: str) -> Any:
        return value(ask(self.server, self.request(f"&data={quote(text)}")))

    def command(self, word: str, *arguments: str) -> Any:
        self.handle += 1
        handle, result = self.send(json.dumps([word, self.handle, *arguments]))[1:]
        assert handle == self.handle
        return result

    def waiting_poll(self) -> socket.socket:
        """Begin a poll, and return once the server has it. It has then answered the previous one."""
        before = connect(self.server)
        before.sendall(self.request())
        poll = connect(self.server)
        poll.sendall(self.request())
        assert value(read_answer(before)) is None
        before.close()
        return poll
