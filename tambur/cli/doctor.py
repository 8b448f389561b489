"""``tambur doctor``: check the connection to ``TAMBUR_URL``, and report failures with remedies."""

from __future__ import annotations

import email.utils
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import requests

from ..credentials import Credentials
from ..errors import ConnectionFailedError, TamburError, TimedOutError
from ..protocol.names import SUBSCRIBER_ID
from ..protocol.paths import subscribe_path
from ..publisher.client import Tambur
from ..publisher.retries import FOREIGN_ERRORS, Route, of_exception

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1024 * 1024
"""The longest answer that a check reads. tambur.js is the longest answer of a Tambur server."""

MAX_CLOCK_DIFFERENCE_S = 300
"""How far a publisher's clock may be off (section 2 of the protocol), in seconds."""

_PROBE = "tambur doctor"


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        name: the name of the check.
        is_good: whether the check passed.
        text: the observation and, if the check failed, what to do. It may quote a server.
    """

    name: str
    is_good: bool
    text: str


class _FoundError(Exception):
    """A check failed; the text says why, and what to do."""


class _Answer(NamedTuple):
    status: int
    headers: requests.structures.CaseInsensitiveDict[str]
    text: str

    @property
    def refusal(self) -> str | None:
        """The server's code for a refused subscriber (section 5 of the protocol), ``None`` without one."""
        return self.headers.get("Tambur-Refused")


def examine(credentials: Credentials) -> Iterator[Finding]:
    """Check the needs of a publisher and its subscribers, step by step.

    The checks publish to streams with fresh UUIDs in their names, so no other subscriber receives anything.

    Parameters:
        credentials: those of the ``TAMBUR_URL``.
    """
    with (
        _Requests(credentials) as http,
        Tambur.from_url(credentials.to_url(), timeout=TIMEOUT_S, max_retries=0) as tambur,
    ):
        checks: list[tuple[str, Callable[[], str]]] = [
            ("publishing", lambda: _check_publishing(tambur)),
            ("clock", lambda: _check_clock(http)),
            ("WebSocket", lambda: _check_websocket(tambur, credentials)),
            ("long polling", lambda: _check_long_polling(http, tambur)),
        ]
        if (stranger := _recognize_stranger(http)) is not None:
            yield Finding("server", is_good=False, text=stranger)
            return  # no other check would say anything about Tambur
        for name, check in checks:
            try:
                finding = Finding(name, is_good=True, text=check())
            except (_FoundError, TamburError, ImportError) as error:
                finding = Finding(name, is_good=False, text=str(error))
                if isinstance(error, (ConnectionFailedError, TimedOutError)):
                    yield finding
                    return  # the other checks would fail for the same reason
            yield finding


class _Requests:
    """GET requests to the server of a ``TAMBUR_URL``."""

    def __init__(self, credentials: Credentials) -> None:
        self._base_url = credentials.base_url
        self.app_id = credentials.app_id
        self.subscribe_path = subscribe_path(credentials.api_key, credentials.app_id)
        scheme, _, self.server = credentials.base_url.partition("://")
        self._route = Route(self.server, is_tls=scheme == "https", proxy=None)
        self._session = _Session()

    def __enter__(self) -> _Requests:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(self, path: str, **parameters: str) -> _Answer:
        """Get a path.

        Raises:
            _FoundError: if no whole answer arrives.
        """
        give_up_at = time.monotonic() + TIMEOUT_S
        body = b""
        try:
            with self._session.get(
                f"{self._base_url}{path}",
                params=parameters,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as response:
                for chunk in response.iter_content(8192):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES or time.monotonic() > give_up_at:
                        raise _FoundError(f"the answer of {self.server} does not end; is the host right?")
        except FOREIGN_ERRORS as error:
            raise _FoundError(of_exception(error, self._route, (TIMEOUT_S, TIMEOUT_S)).text) from error
        return _Answer(response.status_code, response.headers, body.decode("utf-8", "replace"))

    def get_script(self, path: str, **parameters: str) -> _Answer:
        """Get a script that calls a function (sections 5 and 6 of the protocol)."""
        return self.get(path, instance="1", callback="f", **parameters)


class _Session(requests.Session):
    """Sends no password from .netrc, and looks at no Location."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = lambda request: request

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        return None


def _recognize_stranger(http: _Requests) -> str | None:
    """Say why a server cannot be a Tambur server; ``None`` if it is one, or may be behind a failing proxy."""
    try:
        answer = http.get_script(http.subscribe_path)
    except _FoundError:
        return None  # the check of publishing explains why
    if answer.refusal is not None or answer.status >= 500 or _parse_script(answer) is not None:
        return None
    return (
        f"{http.server} is not a Tambur server, since it answered a subscriber's first request with "
        f"{answer.status}; check the host and the port, and the proxy if there is one"
    )


def _check_publishing(tambur: Tambur) -> str:
    started_at = time.monotonic()
    tambur.publish(f"private:{uuid.uuid4()}", _PROBE)
    return f"accepted after {1000 * (time.monotonic() - started_at):.0f} ms"


def _check_clock(http: _Requests) -> str:
    date = http.get("/tambur.js").headers.get("Date", "")
    try:
        difference_s = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return "not compared, since the server's answer has no date"
    text = f"{abs(difference_s):.0f} s {'ahead of' if difference_s > 0 else 'behind'} the server's"
    if abs(difference_s) > MAX_CLOCK_DIFFERENCE_S:
        raise _FoundError(f"{text}, more than {MAX_CLOCK_DIFFERENCE_S} s; set the clock that is wrong")
    # The server's date has whole seconds.
    return text if abs(difference_s) >= 2 else "the same as the server's"


def _check_websocket(tambur: Tambur, credentials: Credentials) -> str:
    from ..subscriber import Subscriber  # noqa: PLC0415 - needs the subscriber's extra

    stream = f"doctor-{uuid.uuid4()}"
    with Subscriber.from_url(credentials.to_url(), timeout=TIMEOUT_S) as subscriber:
        subscriber.subscribe(stream)
        subscriber.enable_auth(stream, tambur.generate_auth_token)
        started_at = time.monotonic()
        tambur.publish(f"auth:{stream}", _PROBE)
        received = subscriber.receive(TIMEOUT_S)
    if received != (stream, "auth", _PROBE, None):
        raise _FoundError(f"another message arrived than the published one: {received!r:.200}")
    return f"a message arrives after {1000 * (time.monotonic() - started_at):.0f} ms"


def _check_long_polling(http: _Requests, tambur: Tambur) -> str:
    stream = f"doctor-{uuid.uuid4()}"
    path = f"/comet{http.subscribe_path}"
    answer = http.get_script(path)
    match answer.refusal:
        case "no_long_polling":
            return "off for this app"
        case "origin_not_allowed":
            return "not tried, since only pages of the allowed origins may poll"
        case "unknown_app":
            raise _FoundError(f"the server has no app {http.app_id!r} with this API key")
    greeting = _script_value(answer)
    subscriber_id = greeting.removeprefix("id:") if isinstance(greeting, str) else ""
    if SUBSCRIBER_ID.fullmatch(subscriber_id) is None:
        raise _FoundError(f"the server sent an invalid subscriber ID: {greeting!r:.200}")
    path += f"/{subscriber_id}"
    try:
        _script_value(http.get_script(path, data=json.dumps(["subscribe", 1, stream])))
        tambur.publish(stream, _PROBE)
        received = _script_value(http.get_script(path))
    finally:
        http.get_script(path, data="fin")
    if received != ["msg", stream, "public", _PROBE]:
        raise _FoundError(f"another message arrived than the published one: {received!r:.200}")
    return "a message arrives"


def _script_value(answer: _Answer) -> Any:
    value = _parse_script(answer)
    if value is None:
        raise _FoundError(
            f"a poll was answered with {answer.status} and without a script; "
            "does a proxy change or cache the answers?"
        )
    return value


def _parse_script(answer: _Answer) -> Any:
    """The value that a script hands to the function; ``None`` if the answer is not such a script."""
    match = re.fullmatch(r"/\*\*/f\(1, (.*)\)", answer.text)
    if answer.status != 200 or match is None:
        return None
    try:
        return json.loads(match[1])
    except (ValueError, RecursionError):
        return None
