"""``tambur doctor``: try everything that a ``TAMBUR_URL`` is for, and say what fails and what to do."""

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
from ..protocol.paths import subscribe_path
from ..publisher.client import Tambur

TIMEOUT_S = 10.0
MAX_CLOCK_DIFFERENCE_S = 300
"""How far a publisher's clock may be off (section 2 of the protocol), in seconds."""

_PROBE = "tambur doctor"


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        name: of the check.
        is_good: false if something has to be mended.
        text: what was seen and, if it is not good, what to do.
    """

    name: str
    is_good: bool
    text: str


class _FoundError(Exception):
    """A check failed; the text says why, and what to do."""


def examine(credentials: Credentials) -> Iterator[Finding]:
    """Check what a publisher and its subscribers need, one after another.

    It publishes to nobody, and to a stream that nobody else has: a name with a fresh UUID.

    Parameters:
        credentials: those of the ``TAMBUR_URL``.
    """
    session = requests.Session()
    session.auth = lambda request: request  # else .netrc would be asked for a password
    with session, Tambur.from_url(credentials.to_url(), timeout=TIMEOUT_S, max_retries=0) as tambur:
        checks: list[tuple[str, Callable[[], str]]] = [
            ("publishing", lambda: _check_publishing(tambur)),
            ("clock", lambda: _check_clock(session, credentials)),
            ("WebSocket", lambda: _check_websocket(tambur, credentials)),
            ("long polling", lambda: _check_long_polling(session, tambur, credentials)),
        ]
        for name, check in checks:
            try:
                finding = Finding(name, is_good=True, text=check())
            except (_FoundError, TamburError, requests.RequestException, ImportError) as error:
                finding = Finding(name, is_good=False, text=str(error))
                if isinstance(error, (ConnectionFailedError, TimedOutError)):
                    yield finding
                    return  # all the others would say the same
            yield finding


def _get(session: requests.Session, url: str, **parameters: str) -> requests.Response:
    return session.get(url, params=parameters, timeout=TIMEOUT_S, allow_redirects=False)


def _check_publishing(tambur: Tambur) -> str:
    started_at = time.monotonic()
    tambur.publish(f"private:{uuid.uuid4()}", _PROBE)
    return f"accepted after {1000 * (time.monotonic() - started_at):.0f} ms"


def _check_clock(session: requests.Session, credentials: Credentials) -> str:
    date = _get(session, f"{credentials.base_url}/tambur.js").headers.get("Date", "")
    try:
        difference_s = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return "the server does not tell its own"
    said = f"{abs(difference_s):.0f} s {'ahead of' if difference_s > 0 else 'behind'} the server's"
    if abs(difference_s) > MAX_CLOCK_DIFFERENCE_S:
        raise _FoundError(
            f"{said}, and at most {MAX_CLOCK_DIFFERENCE_S} s are allowed; set the clock that is wrong"
        )
    # The server's is in whole seconds.
    return said if abs(difference_s) >= 2 else "the same as the server's"


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
        raise _FoundError(f"what arrived is not what was published: {received}")
    return f"a message arrives after {1000 * (time.monotonic() - started_at):.0f} ms"


def _check_long_polling(session: requests.Session, tambur: Tambur, credentials: Credentials) -> str:
    stream = f"doctor-{uuid.uuid4()}"
    url = f"{credentials.base_url}/comet{subscribe_path(credentials.api_key, credentials.app_id)}"
    answer = _get(session, url, instance="1", callback="f")
    if answer.status_code == 404:
        return "off for this app"
    if answer.status_code == 403 and "allowed_origins" in answer.text:
        return "for pages of the allowed origins; not tried"
    url += "/" + _script_value(answer).removeprefix("id:")

    def poll(**parameters: str) -> Any:
        return _script_value(_get(session, url, instance="1", callback="f", **parameters))

    try:
        poll(data=json.dumps(["subscribe", 1, stream]))
        tambur.publish(stream, _PROBE)
        received = poll()
    finally:
        _get(session, url, instance="1", callback="f", data="fin")
    if received != ["msg", stream, "public", _PROBE]:
        raise _FoundError(f"what arrived is not what was published: {received}")
    return "a message arrives"


def _script_value(answer: requests.Response) -> Any:
    match = re.fullmatch(r"/\*\*/f\(1, (.*)\)", answer.text)
    if answer.status_code != 200 or match is None:
        raise _FoundError(
            f"a poll is answered with {answer.status_code} and no script; "
            "does a proxy between change or cache what is answered?"
        )
    return json.loads(match[1])
