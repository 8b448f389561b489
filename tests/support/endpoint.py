"""An endpoint of webhooks on a real socket, which a test stops and starts again."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tambur.webhooks import Event, parse

from .ports import free_port

SECRET = "whsec_" + secrets.token_hex(16)
TIMEOUT_S = 300.0
"""Also for events whose deliveries failed: the time until the next attempt grows."""


class Endpoint:
    """Verifies each request, keeps its event, and answers with 204.

    Attributes:
        events: what it received.
        url: for the configuration of a server.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/webhook"
        self._news = threading.Condition()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Endpoint:  # noqa: PYI034
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port each time, unless it listens already."""
        if self._server is not None:
            return
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                event = parse(body, self.headers, SECRET)
                with endpoint._news:
                    endpoint.events.append(event)
                    endpoint._news.notify_all()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def wait(self, condition: Callable[[list[Event]], object], timeout_s: float = TIMEOUT_S) -> list[Event]:
        """Wait until the events fulfil a condition, and return them."""
        with self._news:
            assert self._news.wait_for(lambda: condition(self.events), timeout_s), self.events
            return list(self.events)

    def picture(self) -> set[tuple[str, str]]:
        """The streams and users that are present, as far as the endpoint knows."""
        newest: dict[tuple[str, str], Event] = {}
        for event in self.events:
            place = event.stream, event.user_id
            if place not in newest or newest[place].version < event.version:
                newest[place] = event
        return {place for place, event in newest.items() if event.type == "user.joined"}
