"""The hierarchy of errors, and the texts of connection errors."""

from __future__ import annotations

import copy
import errno
import inspect
import os
import pickle
import socket
import ssl
from http.client import RemoteDisconnected

import pytest
import requests

from tambur import errors
from tambur.errors import (
    CommandRefusedError,
    MessageTooLargeError,
    PublishError,
    RejectedError,
    SubscriberClosedError,
    TamburError,
)

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TamburError)]


def test_the_docstring_draws_every_error() -> None:
    assert errors.__doc__ is not None
    drawn = {
        word
        for line in errors.__doc__.split("\n\nThe base classes")[0].splitlines()
        if line.strip(" |+-")
        for word in line.strip(" |+-").split()[:1]
        if word.endswith("Error")
    }
    assert drawn == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.ConfigurationError, ValueError),
        (errors.InvalidNameError, ValueError),
        (errors.InvalidMessageError, ValueError),
        (errors.PublishError, requests.RequestException),
        (errors.ConnectionFailedError, requests.ConnectionError),
        (errors.TimedOutError, requests.Timeout),
        (errors.RejectedError, requests.HTTPError),
        (errors.SubscriberClosedError, ConnectionError),
        (errors.SubscriberTimeoutError, TimeoutError),
    ],
)
def test_an_error_is_also_the_exception_of_2012(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, base)
    assert issubclass(kind, TamburError)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_made_from_a_text(kind: type[TamburError]) -> None:
    assert str(kind("what went wrong")) == "what went wrong"


@pytest.mark.parametrize(
    "error",
    [
        RejectedError("text", stream="s", attempts=3, status=500, reason="r", retry_after=1.5),
        MessageTooLargeError("text", stream="s", may_have_been_delivered=False, status=413),
        PublishError("text", stream="s", attempts=2),
        CommandRefusedError("text", command="subscribe", result="invalid_stream"),
        SubscriberClosedError("text", code=1001, reason="bye"),
    ],
)
def test_an_error_can_be_pickled_and_copied(error: TamburError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(other) is type(error)
        assert str(other) == "text"
        assert vars(other) == vars(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(errno.ECONNREFUSED, "Connection refused"),
            "connection refused; is `tambur serve` running there?",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "cannot resolve the host name (name or service not known); is it spelled correctly?",
        ),
        (
            OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)),
            "no route to host; is the host reachable from here?",
        ),
        (
            OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)),
            "network is unreachable; is the host reachable from here?",
        ),
        (
            OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),
            "connection timed out; is the host reachable from here?",
        ),
        (OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)), "connection reset by peer"),
        (RemoteDisconnected("Remote end closed connection without response"), "the server closed it"),
        (ssl.SSLError(1, "[SSL] record layer failure"), "TLS failed: [SSL] record layer failure; does the server use TLS on this port?"),
        (ValueError("http://user:password@proxy"), "ValueError"),
    ],
)  # fmt: skip
def test_a_connection_error_says_why_and_what_to_check(error: Exception, text: str) -> None:
    assert errors.explain_connection_error(error) == text
