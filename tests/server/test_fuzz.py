"""For any input, the server answers as the protocol says, continues, and disturbs no other client.

``TAMBUR_FUZZ_EXAMPLES`` says how many examples each test generates, see ``tests/conftest.py``.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tambur import Tambur
from tambur.protocol.polls import as_frame
from tambur.protocol.tokens import Mode, TokenSigner
from tambur.server import Config, Limits, Server, in_background
from tambur.server.subscriptions import Result
from tests.support.app import API_KEY, APP, APP_ID, SECRET
from tests.support.extended_polling import ExtendedPoller, content, post
from tests.support.polling import Poller, request
from tests.support.querying import query
from tests.support.strategies import json_values

from ..support.wire import SUBSCRIBE_PATH, Socket, ask, connect, handshake, read_all

fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
SIGNER = TokenSigner(API_KEY, APP_ID, SECRET)

STREAMS = st.sampled_from(["a", "b", "a:b", "private", "auth:a", "", "x" * 201, "\x00"])
USERS = st.sampled_from(["u", "v", "u:v", "", "x" * 201])

frames = st.builds(
    Frame,
    st.sampled_from([Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING]),
    st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()),
    st.booleans(),
)
words = st.sampled_from(["subscribe", "unsubscribe", "set_mode", "unset_mode", "direct", "publish", ""])
modes = st.sampled_from([*(mode.value for mode in Mode), "admin", 1])
handles = st.integers(0, 5) | st.sampled_from([True, 2**53 - 1, 2**53, -1, "1", None])
command_like = st.builds(
    lambda word, handle, rest: [word, handle, *rest],
    words,
    handles,
    st.lists(STREAMS | USERS | modes | st.text(max_size=5) | st.none(), max_size=5),
)


@fuzzed
@given(st.lists(frames, max_size=10), st.binary(max_size=50))
def test_nothing_that_one_sends_disturbs_another(
    server: Server, tambur: Tambur, sent: list[Frame], garbage: bytes
) -> None:
    with Socket(server) as bystander:
        assert bystander.command("subscribe", 1, "bystander") == ["ack", 1, "ok"]
        with Socket(server) as one:
            data = b""
            for frame in sent:
                try:
                    data += frame.serialize(mask=True)
                except Exception:  # noqa: BLE001 - a frame that the library refuses to write
                    data += garbage
            one.connection.sendall(data + garbage)
            one.connection.shutdown(socket.SHUT_WR)
            read_all(one.connection)
        tambur.publish("bystander", "still there")
        assert bystander.json() == ["msg", "bystander", "public", "still there"]


@fuzzed
@given(st.data())
def test_no_request_is_answered_with_500(server: Server, data: st.DataObject) -> None:
    templates = [
        handshake(),
        request(),
        post({"send": [["hello", 1, {}], ["subscribe", 2, "s"]], "close": 1000}),
        f"POST /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        "Content-Length: 20\r\n\r\nmessage=x&api_version".encode(),
    ]
    sent = bytearray(data.draw(st.sampled_from(templates)))
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(sent) - 1))
        sent[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with connect(server) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert not answer.startswith(b"HTTP/1.1 5")


@fuzzed
@given(st.lists(command_like | json_values, min_size=1, max_size=9))
def test_a_command_gets_the_same_answer_over_all_transports(server: Server, sent: list[Any]) -> None:
    """At most nine: ten malformed ones in a row end the connection."""
    poller = Poller(server)
    extended = ExtendedPoller(server, plain=True)
    handles_of_extended = itertools.count(1)
    with Socket(server) as one:
        for value in sent:
            text = json.dumps(value)
            one.send_text(text.encode())
            answer = one.json()
            while answer[0] == "msg":
                answer = one.json()
            assert answer == poller.send(text)
            _, handle, result = answer
            assert handle == 0 or result in {each.value for each in Result}
            # Commands with old handles are not done again, so each gets a new one.
            if as_frame(value).handle is not None:
                value = [value[0], next(handles_of_extended), *value[2:]]  # noqa: PLW2901
                answer[1] = value[1] if handle else 0
            assert [frame for frame in extended.send(value) if frame[0] == "ack"] == [answer]
    poller.send("fin")
    extended.send(close=1000)


poll_like = st.fixed_dictionaries(
    {},
    optional={
        "poll": st.text(max_size=5) | json_values | st.just("SECRET"),
        "n": st.integers(-1, 5) | json_values,
        "send": st.lists(command_like | json_values, max_size=5) | json_values,
        "close": st.integers(998, 1002) | json_values,
    },
)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server whose polls wait for a short time."""
    with in_background(Config(apps=(APP,), port=0, limits=Limits(heartbeat_s=0.05))) as running:
        yield running


@fuzzed
@given(st.lists(poll_like | json_values | st.binary(max_size=20), max_size=5))
def test_no_poll_disturbs_another(impatient: Server, sent: list[Any]) -> None:
    bystander, attacked = ExtendedPoller(impatient), ExtendedPoller(impatient)
    assert bystander.ask("subscribe", "bystander")["complete"] is True
    opened = {attacked.secret}
    for body in sent:
        if isinstance(body, dict) and body.get("poll") == "SECRET":
            body["poll"] = attacked.secret
        answer = ask(impatient, post(body))
        assert answer.status in (200, 400, 404), answer.body
        if answer.status == 200:
            opened.add(content(answer)["poll"])
    for secret in opened:
        ask(impatient, post({"poll": secret, "n": 0, "close": 1000}))
    assert bystander.send(["unsubscribe", 100, "bystander"]) == [["ack", 100, "ok"]]
    bystander.send(close=1000)


query_paths = st.sampled_from(["users/s", "history/s", "streams", "disconnect"]) | st.builds(
    lambda word, stream: f"{word}/{stream}",
    st.sampled_from(["users", "history", "streams", "disconnect", "batch", "x"]),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=8) | st.just("%FF%00"),
)
query_values = st.text(max_size=8) | st.binary(max_size=8) | st.sampled_from(["1", "1000", "1001", "A" * 22])
query_parameters = st.lists(
    st.tuples(
        st.sampled_from(["limit", "after", "prefix", "since", "subscriber_id", "user_id", "x"]),
        query_values.map(lambda value: value.encode("utf-8", "replace") if isinstance(value, str) else value),
    ),
    max_size=3,
)


@fuzzed
@given(query_paths, query_parameters)
def test_a_signed_query_is_answered_with_json_or_refused_with_a_rule(
    server: Server, path: str, parameters: list[tuple[str, bytes]]
) -> None:
    answer = query(server, path.replace("?", "%3F").replace("#", "%23"), *parameters)
    if answer.status == 200:
        assert isinstance(json.loads(answer.body), dict)
    else:
        assert answer.status in (400, 404), answer.body
        assert answer.body.decode().strip()


fields = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(Mode),
        "stream": st.sampled_from(["a", "b", "a:b"]),
        "user_id": st.sampled_from(["u", "v"]),
        "subscriber_id": st.sampled_from(["own", "other"]),
        "secret": st.sampled_from([SECRET, "wrong"]),
    }
)


@fuzzed
@given(fields, fields, st.none() | st.text(max_size=41))
def test_a_token_is_good_for_what_it_was_made_for_and_for_nothing_else(
    server: Server, asked: dict[str, Any], made: dict[str, Any], garbage: str | None
) -> None:
    with Socket(server) as one:
        mode, stream, user_id = asked["mode"], asked["stream"], asked["user_id"]
        users = [] if mode is Mode.AUTH else [user_id]
        subscriber_id = one.subscriber_id if made["subscriber_id"] == "own" else f"{one.subscriber_id[:-1]}x"
        token = TokenSigner(API_KEY, APP_ID, made["secret"]).sign(
            made["mode"], made["stream"], subscriber_id, made["user_id"]
        )
        fits = (
            garbage is None
            and made["secret"] == SECRET
            and made["subscriber_id"] == "own"
            and (made["mode"], made["stream"]) == (mode, stream)
            and (mode is Mode.AUTH or made["user_id"] == user_id)
        )
        one.command("subscribe", 1, stream)
        _, _, result = one.command(
            "set_mode", 2, mode.value, stream, *users, token if garbage is None else garbage
        )
        assert result == ("ok" if fits else "invalid_token")


@fuzzed
@given(
    st.text(max_size=20) | st.from_regex(r"[A-Za-z_$][A-Za-z0-9_$.]{0,99}", fullmatch=True),
    st.text(max_size=20) | st.from_regex(r"[0-9]{1,20}", fullmatch=True),
    st.sampled_from([SUBSCRIBE_PATH, f"/comet{SUBSCRIBE_PATH}"]),
)
def test_a_script_calls_the_requested_function_or_is_refused(
    server: Server, callback: str, instance: str, path: str
) -> None:
    query = f"instance={quote(instance, safe='')}&callback={quote(callback, safe='')}"
    answer = ask(server, f"GET {path}?{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    if re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$.]{0,99}", callback) and re.fullmatch(r"[0-9]{1,20}", instance):
        assert answer.status == 200
        assert answer.body.startswith(f'/**/{callback}({instance}, "'.encode())
        assert answer.body.endswith(b'")')
        if greeting := re.search(rb'"id:(.*)"', answer.body):
            ask(server, request(f"/{greeting[1].decode()}", "&data=fin"))
    else:
        assert answer.status == 400
        assert answer.headers["content-type"].startswith("text/plain")
