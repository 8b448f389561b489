"""The hierarchy of errors."""

from __future__ import annotations

import copy
import inspect
import pickle

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


def test_every_error_is_in_the_drawing() -> None:
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
def test_what_was_caught_before_still_is(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, base)
    assert issubclass(kind, TamburError)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_made_of_a_text(kind: type[TamburError]) -> None:
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
def test_an_error_survives_a_job_queue(error: TamburError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(other) is type(error)
        assert str(other) == "text"
        assert vars(other) == vars(error)
