"""The requests and answers of extended long polling."""

from __future__ import annotations

import json

import pytest

from tambur.protocol.polls import (
    MAX_COMMANDS,
    InvalidPollError,
    Poll,
    SentCommand,
    as_frame,
    encode_answer,
    encode_close,
    encode_greeting,
    parse_poll,
)


def test_a_body_is_parsed() -> None:
    assert parse_poll(b"{}") == Poll(None, 0, [], None)
    body = {"poll": "secret", "n": 3, "send": [["hello", 1, {}]], "close": 4000, "unknown": 1}
    assert parse_poll(json.dumps(body).encode()) == Poll("secret", 3, [["hello", 1, {}]], 4000)


@pytest.mark.parametrize(
    ("command", "handle"),
    [
        (["x", 1], 1),
        (["x", 2**53 - 1, []], 2**53 - 1),
        (["x", 2**53], None),
        (["x", 0], None),
        (["x", True], None),
        (["x", 1.0], None),
        (["x", "1"], None),
        ([5], None),
        ([], None),
        ({"x": 1}, None),
        ("x", None),
        (None, None),
    ],
)
def test_a_commands_handle_is_found(command: object, handle: int | None) -> None:
    assert as_frame(command).handle == handle
    assert json.loads(as_frame(command).text) == command


def test_a_command_that_is_nested_too_deeply_is_not_json() -> None:
    command: list[object] = ["x", 7]
    for _ in range(10_000):
        command = ["x", 7, command]
    assert as_frame(command) == SentCommand(7, "")


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "the body must be a JSON object"),
        (b"\xff", "the body must be a JSON object"),
        (b"[]", "the body must be a JSON object"),
        (b'{"send":[]', "the body must be a JSON object"),
        (b'{"send":' + b"[" * 19_000, "the body must be a JSON object"),
        (b'{"n":' + b"9" * 5000 + b"}", "the body must be a JSON object"),
        (b'{"poll":null}', "poll must be the string that an answer has named"),
        (b'{"poll":"x"}', "n is missing: it is the n of the last answer"),
        (b'{"poll":"x","n":-1}', "n must be an integer from 0 to 2^53 - 1"),
        (b'{"poll":"x","n":true}', "n must be an integer from 0 to 2^53 - 1"),
        (b'{"poll":"x","n":1.0}', "n must be an integer from 0 to 2^53 - 1"),
        (b'{"poll":"x","n":9007199254740992}', "n must be an integer from 0 to 2^53 - 1"),
        (b'{"n":1}', "n must be 0 in the request that opens a connection"),
        (b'{"close":"1000"}', "close must be an integer from 1000 to 4999"),
        (b'{"close":null}', "close must be an integer from 1000 to 4999"),
        (b'{"close":999}', "close must be an integer from 1000 to 4999"),
        (b'{"close":5000}', "close must be an integer from 1000 to 4999"),
        (b'{"send":{}}', "send must be an array of commands"),
        (b'{"send":null}', "send must be an array of commands"),
        (
            b'{"send":[' + b"1," * 32_000 + b"0]}",
            "the body must have at most 64,000 characters outside of strings",
        ),
        (b"[" * 64_001, "the body must have at most 64,000 characters outside of strings"),
        (
            json.dumps({"send": [1] * (MAX_COMMANDS + 1)}).encode(),
            "send must have at most 1000 commands, not 1001",
        ),
    ],
)
def test_a_malformed_body_is_refused_with_the_rule(body: bytes, rule: str) -> None:
    with pytest.raises(InvalidPollError) as refused:
        parse_poll(body)
    assert str(refused.value) == rule


def test_answers_are_json() -> None:
    frames = [encode_greeting("i-d"), '["msg","é\u2028"]'.encode(), encode_close(4009, 'a "reason"')]
    assert json.loads(encode_answer("secret", 7, frames)) == {
        "poll": "secret",
        "n": 7,
        "frames": ["id:i-d", ["msg", "é\u2028"], ["close", 4009, 'a "reason"']],
    }
    assert json.loads(encode_answer("s", 0, [])) == {"poll": "s", "n": 0, "frames": []}
