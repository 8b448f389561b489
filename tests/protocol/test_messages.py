"""The form of commands and events: section 4 of the protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tambur.protocol import messages as commands
from tambur.protocol.messages import (
    MAX_SYNTAX,
    Direct,
    Hello,
    MalformedCommandError,
    SetMode,
    Subscribe,
    UnsetMode,
    Unsubscribe,
    add_position,
    encode_ack,
    encode_message,
    encode_session,
)  # fmt: skip
from tambur.protocol.names import Kind
from tambur.protocol.options import HelloOptions, SubscribeOptions
from tambur.protocol.syntax import syntax_length
from tambur.protocol.tokens import Mode

from ..support.strategies import json_values, streams


@pytest.mark.parametrize(
    ("array", "command"),
    [
        (["subscribe", 1, "s"], Subscribe(1, "s")),
        (["subscribe", 2**53 - 1, ""], Subscribe(2**53 - 1, "")),
        (["unsubscribe", 2, "s"], Unsubscribe(2, "s")),
        (["set_mode", 3, "auth", "s", "t"], SetMode(3, Mode.AUTH, "s", None, "t")),
        (["set_mode", 3, "presence", "s", "u", "t"], SetMode(3, Mode.PRESENCE, "s", "u", "t")),
        (["set_mode", 3, "direct", "s", "u", "t"], SetMode(3, Mode.DIRECT, "s", "u", "t")),
        (["unset_mode", 4, "auth", "s"], UnsetMode(4, Mode.AUTH, "s")),
        (["unset_mode", 4, "presence", "s"], UnsetMode(4, Mode.PRESENCE, "s")),
        (["unset_mode", 4, "direct", "s"], UnsetMode(4, Mode.DIRECT, "s")),
        (["unset_mode", 4, "direct", "s", None], UnsetMode(4, Mode.DIRECT, "s")),
        (["direct", 5, "s", "u", "🥁"], Direct(5, "s", "u", "🥁")),
        (["subscribe", 1, "\ud800"], Subscribe(1, "\ud800")),
    ],
)
def test_a_command_is_parsed(array: list[Any], command: commands.Command) -> None:
    assert commands.parse(json.dumps(array)) == command


MALFORMED = [
    "", "x", "[", "{}", "1", '"subscribe"', "null", "[]", "[[]]", '["x", 1]', "[1, 1]", "[null]",
    '["subscribe"]', '["subscribe", 1]', '["subscribe", 1, "s", "x"]', '["subscribe", 1, 7]',
    '["subscribe", 0, "s"]', '["subscribe", -1, "s"]', '["subscribe", true, "s"]', '["subscribe", 1.0, "s"]',
    '["subscribe", "1", "s"]', '["subscribe", 9007199254740992, "s"]', '["subscribe", NaN, "s"]',
    '["subscribe", null, "s"]', '["Subscribe", 1, "s"]', '["subscribe", 1, "s"] x',
    '["set_mode", 1]', '["set_mode", 1, "public", "s", "t"]', '["set_mode", 1, "auth", "s"]',
    '["set_mode", 1, "auth", "s", "u", "t"]', '["set_mode", 1, "presence", "s", "t"]',
    '["set_mode", 1, ["auth"], "s", "t"]', '["set_mode", 1, "auth", "s", null]',
    '["unset_mode", 1, "auth"]', '["unset_mode", 1, "auth", "s", "u"]',
    '["unset_mode", 1, "presence", "s", "u"]',
    '["unset_mode", 1, "direct", "s", "u", "x"]', '["direct", 1, "s", "u"]', '["direct", 1, "s", "u", {}]',
    '["direct", 1, "s", "u", "\\ud800"]', "[" * 100_000, '["subscribe", 1' + "0" * 5000 + ', "s"]',
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:60])
def test_a_malformed_command_says_why(text: str) -> None:
    with pytest.raises(MalformedCommandError) as caught:
        commands.parse(text)
    assert str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '["set_mode", 1, "presence", "s", 7, "t"]',
            "USER_ID must be a string, not the number 7; use String(id) in the page, and str(id) for its token",
        ),
        ('["set_mode", 1, "direct", "s", 7.5, "t"]', "USER_ID must be a string, not the number 7.5; use String"),
        ('["direct", 1, "s", 8, "Hello"]', "TO_USER_ID must be a string, not the number 8; use String(id)"),
        ('["subscribe", 1, 42]', "STREAM must be a string, not the number 42; use String(id)"),
        ('["set_mode", 1, "auth", "s", {"token": "hidden"}]', "TOKEN must be a string, not an object"),
        ('["direct", 1, "s", "u", ["a"]]', "MESSAGE must be a string, not an array"),
        ('["direct", 1, "s", true, "m"]', "TO_USER_ID must be a string, not true or false"),
        ('["set_mode", 1, "presence", null, "u", "t"]', "STREAM must be a string, not null"),
        ('["set_mode", 1, "presence", "s", "t"]', 'the form must be ["set_mode", HANDLE, "presence", STREAM, USER_ID, TOKEN]'),
    ],
)  # fmt: skip
def test_a_field_that_is_not_a_string_is_named(text: str, reason: str) -> None:
    with pytest.raises(MalformedCommandError) as caught:
        commands.parse(text)
    assert str(caught.value).startswith(reason)
    assert "hidden" not in str(caught.value)


def test_a_command_has_few_characters_outside_of_strings() -> None:
    long = '\\"[,]' * 100_000
    largest = json.dumps(["direct", 1, "s", "u", long])
    room = " " * (MAX_SYNTAX - syntax_length(largest))
    assert commands.parse(largest + room) == Direct(1, "s", "u", long)
    for text in (largest + room + " ", '["subscribe", 1, "s", ' + "[[[[]]]]," * 50_000 + "1]"):
        with pytest.raises(MalformedCommandError, match="at most 4,096 characters outside of strings"):
            commands.parse(text)


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_a_command_or_malformed(text: str) -> None:
    try:
        command = commands.parse(text)
    except MalformedCommandError:
        return
    assert 0 < command.handle <= 2**53 - 1
    assert isinstance(command, Hello) or isinstance(command.stream, str)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_message_is_passed_on_unchanged(message: str) -> None:
    assert json.loads(commands.encode_message(Kind.PUBLIC, "s", message)) == ["msg", "s", "public", message]
    assert json.loads(commands.encode_message(Kind.AUTH, "s", message)) == ["msg", "s", "auth", message]
    assert json.loads(commands.encode_direct("s", "u", message)) == ["msg", "s", "direct", ["u", message]]


def test_a_private_message_has_the_stream_private() -> None:
    event = commands.encode_message(Kind.PRIVATE, "an-id", "x")
    assert json.loads(event) == ["msg", "private", "private", "x"]


def test_events_are_compact_json() -> None:
    assert commands.encode_ack(7, "ok") == b'["ack",7,"ok"]'
    assert commands.encode_presence("s", "é", up=True) == '["msg","s","presence",["é","up"]]'.encode()
    assert commands.encode_presence("s", "é", up=False) == '["msg","s","presence",["é","down"]]'.encode()


def test_a_hello_has_options_and_says_if_they_are_invalid() -> None:
    assert commands.parse('["hello",1,{}]') == Hello(1, HelloOptions())
    assert commands.parse('["hello",2,{"session":"k"}]') == Hello(2, HelloOptions(session="k"))
    assert commands.parse('["hello",3,null]') == Hello(3, None)
    assert commands.parse('["hello",3,{"session":1}]') == Hello(3, None)
    for text in ('["hello"]', '["hello",1]', '["hello",0,{}]', '["hello",1,{},{}]'):
        with pytest.raises(MalformedCommandError):
            commands.parse(text)


def test_only_an_extended_connection_subscribes_with_options() -> None:
    for text in ('["subscribe",1,"s",{}]', '["subscribe",1,"s",null]'):
        with pytest.raises(MalformedCommandError):
            commands.parse(text)
    assert commands.parse('["subscribe",1,"s"]', is_extended=True) == Subscribe(1, "s")
    for options, parsed in (
        ('{"last":1}', SubscribeOptions(last=1)),
        ("{}", SubscribeOptions()),
        ("null", None),
    ):
        command = commands.parse(f'["subscribe",1,"s",{options}]', is_extended=True)
        assert command == Subscribe(1, "s", parsed)
    for text in (
        '["subscribe",1]',
        '["subscribe",1,null]',
        '["subscribe",1,"s",{},{}]',
        '["subscribe",1,{}]',
    ):
        with pytest.raises(MalformedCommandError):
            commands.parse(text, is_extended=True)


def test_an_ack_may_have_facts() -> None:
    assert encode_ack(1, "ok") == b'["ack",1,"ok"]'
    assert encode_ack(1, "ok", {"complete": True}) == b'["ack",1,"ok",{"complete":true}]'


@given(streams, st.text(max_size=50).filter(lambda text: text.isprintable()))
def test_a_position_is_the_fifth_element_of_a_message(stream: str, body: str) -> None:
    event = encode_message(Kind.PUBLIC, stream, body)
    assert json.loads(add_position(event, "a_B-9")) == [*json.loads(event), "a_B-9"]


def test_a_session_message_holds_only_the_key() -> None:
    assert encode_session("k") == b'["session","k"]'


@given(st.sampled_from([Kind.PUBLIC, Kind.AUTH]), streams, st.text(st.characters(exclude_categories=["Cs"])))
def test_the_text_of_a_message_is_found_in_its_event(kind: Kind, stream: str, text: str) -> None:
    event = commands.encode_message(kind, stream, text)
    assert json.loads(commands.message_json(kind, stream, event)) == text
