"""A client with an extended connection: section 7 of the protocol."""

from __future__ import annotations

import itertools
from typing import Any

from tambur.server import App
from tambur.server.config import KeptStreams

from .app import API_KEY, APP_ID, SECRET
from .wire import Listening, Socket

OTHER_APP = App(API_KEY, "other", (SECRET,))
KEPT_APP = App(
    API_KEY, "kept", (SECRET,), history=(KeptStreams("room-*", messages=3), KeptStreams("none", 0))
)
"""An app whose streams have a history of their own."""


class Client(Socket):
    """An extended connection."""

    def __init__(
        self, server: Listening, *, app_id: str = APP_ID, session: str | None = None, **more: Any
    ) -> None:
        super().__init__(server, f"/{API_KEY}/{app_id}")
        self._handles = itertools.count(1)
        options = more if session is None else {"session": session, **more}
        self.replayed: list[Any] = []
        self.hello = self.ask("hello", options)

    def __enter__(self) -> Client:  # noqa: PYI034
        return self

    def json(self) -> Any:
        while (array := super().json()) == ["heartbeat"] or array[0] == "session":
            pass
        return array

    def ask(self, word: str, *arguments: Any) -> Any:
        """Send a command and return the content of its ack. Messages before it are in ``replayed``."""
        handle = next(self._handles)
        self.send(word, handle, *arguments)
        self.replayed = []
        while (array := self.json())[0] != "ack":
            self.replayed.append(array)
        assert array[1] == handle
        return array[3] if len(array) == 4 else array[2]

    @property
    def bodies(self) -> list[Any]:
        return [message[3] for message in self.replayed]
