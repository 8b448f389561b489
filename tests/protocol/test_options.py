"""The options of ``hello`` and ``subscribe``: section 7 of the protocol."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from tambur.protocol.options import (
    AsUser,
    HelloOptions,
    InvalidOptionsError,
    SubscribeOptions,
    parse_hello_options,
    parse_subscribe_options,
)

from ..support.strategies import json_values


def test_options_may_be_left_out_and_members_with_other_names_are_ignored() -> None:
    assert parse_hello_options({}) == HelloOptions()
    assert parse_hello_options({"more": 1}) == HelloOptions()
    assert parse_subscribe_options({}) == parse_subscribe_options({"more": [1]}) == SubscribeOptions()


def test_every_member_can_be_given() -> None:
    assert parse_hello_options({"session": "k", "since": ""}) == HelloOptions("k", "")
    given = {"since": "p", "auth": "t", "presence": ["alice", "u"], "direct": ["bob", ""]}
    assert parse_subscribe_options(given) == SubscribeOptions(
        since="p", auth="t", presence=AsUser("alice", "u"), direct=AsUser("bob", "")
    )
    for last in (0, 1, 1000):
        assert parse_subscribe_options({"last": last}) == SubscribeOptions(last=last)


@pytest.mark.parametrize("options", [None, True, False, 0, "", "{}", [], [{}]])
def test_options_that_are_not_an_object_are_refused(options: object) -> None:
    with pytest.raises(InvalidOptionsError):
        parse_hello_options(options)
    with pytest.raises(InvalidOptionsError):
        parse_subscribe_options(options)


@pytest.mark.parametrize(
    "options",
    [
        {"since": None},
        {"since": 1},
        {"since": ["p"]},
        {"last": None},
        {"last": "1"},
        {"last": 1.0},
        {"last": True},
        {"last": -1},
        {"last": 1001},
        {"last": 1, "since": "p"},
        {"last": 1, "since": None},
        {"auth": None},
        {"auth": ["t"]},
        {"presence": "alice"},
        {"presence": ["alice"]},
        {"presence": ["alice", "t", "u"]},
        {"presence": ["alice", None]},
        {"presence": [1, "t"]},
        {"presence": ["a:b", "t"]},
        {"presence": ["", "t"]},
        {"direct": ["\ud800", "t"]},
        {"direct": {"0": "alice", "1": "t"}},
        {"direct": None},
    ],
)
def test_a_member_with_a_wrong_type_or_value_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionsError):
        parse_subscribe_options(options)


@pytest.mark.parametrize("options", [{"session": None}, {"session": 1}, {"since": 1}, {"session": ["k"]}])
def test_a_member_of_a_hello_with_a_wrong_type_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionsError):
        parse_hello_options(options)


@given(json_values)
def test_json_values_is_either_taken_or_refused(options: Any) -> None:
    for parse in (parse_hello_options, parse_subscribe_options):
        try:
            parse(options)
        except InvalidOptionsError:
            continue
        assert isinstance(options, dict)
