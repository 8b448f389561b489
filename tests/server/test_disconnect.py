"""Disconnects over real connections: sections 7 and 9 of the protocol."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background

from ..support.app import API_KEY, APP, APP_ID, SECRET
from ..support.extended import Client
from ..support.extended_polling import ExtendedPoller
from ..support.polling import Poller
from ..support.querying import query
from ..support.wire import Socket

OTHER_APP = App(API_KEY, "other", (SECRET,))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with in_background(Config(apps=(APP, OTHER_APP), port=0)) as running:
        yield running


@pytest.fixture
def user(stream: str) -> str:
    """A user that no other test has."""
    return f"alice-{stream}"


def enable(plain: Socket, tambur: Tambur, mode: str, stream: str, user: str) -> Any:
    """Enable a mode on a plain connection, and return the result."""
    make = {"presence": tambur.generate_presence_token, "direct": tambur.generate_direct_token}[mode]
    plain.send("set_mode", 9, mode, stream, user, make(stream, user, plain.subscriber_id))
    while (array := plain.json())[0] != "ack":
        pass
    return array[2]


def present(client: Client, tambur: Tambur, stream: str, user: str) -> Any:
    """Subscribe an extended connection with presence, and return the ack's content."""
    token = tambur.generate_presence_token(stream, user, client.hello["id"])
    return client.ask("subscribe", stream, {"presence": [user, token]})


def test_a_disconnected_subscriber_is_closed_with_4003(server: Server, tambur: Tambur) -> None:
    with Socket(server) as plain, Client(server) as extended, Socket(server) as bystander:
        assert tambur.disconnect(subscriber_id=plain.subscriber_id) == 1
        assert plain.close_code() == 4003
        assert tambur.disconnect(subscriber_id=extended.subscriber_id) == 1
        assert extended.close_code() == 4003
        assert bystander.command("subscribe", 1, "s") == ["ack", 1, "ok"]


def test_an_unknown_subscriber_or_user_is_0(tambur: Tambur) -> None:
    assert tambur.disconnect(subscriber_id="unknown") == 0
    assert tambur.disconnect(user_id="unknown") == 0
    assert tambur.disconnect(user_id=7) == 0


def test_a_subscriber_that_polls_is_disconnected(server: Server, tambur: Tambur) -> None:
    poller = Poller(server)
    poller.send(json.dumps(["subscribe", 1, "s"]))
    assert tambur.disconnect(subscriber_id=poller.subscriber_id) == 1
    assert tambur.disconnect(subscriber_id=poller.subscriber_id) == 0


def test_an_extended_connection_over_long_polling_is_closed_and_its_session_ended(
    server: Server, tambur: Tambur, stream: str, user: str
) -> None:
    poller = ExtendedPoller(server)
    token = tambur.generate_presence_token(stream, user, poller.hello["id"])
    poller.ask("subscribe", stream, {"presence": [user, token]})
    assert tambur.disconnect(user_id=user) == 1
    assert poller.next()[:2] == ["close", 4003]
    with Client(server, session=poller.hello["session"]) as back:
        assert back.hello["resumed"] is False
    assert tambur.users(stream) == []


def test_every_connection_of_a_user_is_closed_whatever_its_mode(
    server: Server, tambur: Tambur, stream: str, user: str
) -> None:
    with Socket(server) as one, Socket(server) as two, Client(server) as three, Socket(server) as other:
        for plain, mode, name in ((one, "presence", user), (two, "direct", user), (other, "presence", "bob")):
            plain.command("subscribe", 1, stream)
            assert enable(plain, tambur, mode, stream, name) == "ok"
        assert present(three, tambur, f"{stream}2", user)["complete"] is True
        assert tambur.disconnect(user_id=user) == 3
        assert [each.close_code() for each in (one, two, three)] == [4003] * 3
        other.send("subscribe", 2, f"{stream}2")
        while (array := other.json())[0] != "ack":
            pass
        assert array == ["ack", 2, "ok"]
        assert tambur.users(stream) == ["bob"]
        assert tambur.users(f"{stream}2") == []


def test_a_connection_with_several_modes_counts_once(
    server: Server, tambur: Tambur, stream: str, user: str
) -> None:
    with Socket(server) as plain:
        for name in (stream, f"{stream}2"):
            plain.command("subscribe", 1, name)
            for mode in ("presence", "direct"):
                assert enable(plain, tambur, mode, name, user) == "ok"
        assert tambur.disconnect(user_id=user) == 1


def test_a_user_of_another_app_stays(server: Server, tambur: Tambur, stream: str, user: str) -> None:
    with Tambur(API_KEY, "other", SECRET, server.url) as other, Client(server) as client:
        present(client, tambur, stream, user)
        assert other.disconnect(user_id=user) == 0
        assert other.disconnect(subscriber_id=client.subscriber_id) == 0
        assert client.ask("subscribe", f"{stream}2")["complete"] is True
    with Client(server, session=client.hello["session"]) as back:
        assert back.hello["resumed"] is True


@pytest.mark.parametrize("by", ["subscriber_id", "user_id"])
def test_a_disconnected_session_is_not_resumed(
    server: Server, tambur: Tambur, stream: str, user: str, by: str
) -> None:
    with Client(server) as client:
        present(client, tambur, stream, user)
        target = {"subscriber_id": client.subscriber_id, "user_id": user}[by]
        assert tambur.disconnect(**{by: target}) == 1
        assert client.close_code() == 4003
    token = tambur.generate_presence_token(stream, user, client.subscriber_id)
    with Client(server, session=client.hello["session"], since=client.hello["position"]) as back:
        assert (back.hello["resumed"], back.hello["complete"]) == (False, False)
        assert back.hello["id"] == back.subscriber_id != client.subscriber_id
        assert back.ask("subscribe", stream, {"presence": [user, token]}) == "invalid_token"
        assert present(back, tambur, stream, user)["complete"] is True, "with a token for the new session"


@pytest.mark.parametrize("by", ["subscriber_id", "user_id"])
def test_a_lost_session_counts_and_its_user_leaves(
    server: Server, tambur: Tambur, stream: str, user: str, by: str
) -> None:
    with Client(server) as witness, Client(server) as client:
        present(witness, tambur, stream, "witness")
        present(client, tambur, stream, user)
        assert witness.json()[3] == [user, "up"]
        client.connection.close()
        target = {"subscriber_id": client.subscriber_id, "user_id": user}[by]
        # The server may still be noticing the end. The session counts once, as a connection or as lost.
        assert tambur.disconnect(**{by: target}) == 1
        assert witness.json()[3] == [user, "down"]
        assert tambur.disconnect(**{by: target}) == 0
    with Client(server, session=client.hello["session"]) as back:
        assert back.hello["resumed"] is False


def test_a_resumed_session_counts_once_and_is_found_by_its_id(
    server: Server, tambur: Tambur, stream: str, user: str
) -> None:
    with Client(server) as lost:
        present(lost, tambur, stream, user)
    with Client(server, session=lost.hello["session"]) as back:
        assert back.hello["resumed"] is True
        present(back, tambur, stream, user)
        assert tambur.disconnect(user_id=user) == 1
        assert back.close_code() == 4003
    with Client(server, session=back.hello["session"]) as again:
        assert again.hello["resumed"] is False


def test_modes_as_a_disconnected_user_need_a_session_that_began_later(
    server: Server, tambur: Tambur, stream: str, user: str
) -> None:
    """These connections had a token, but not the mode, when the user was disconnected."""
    with Socket(server) as plain, Client(server) as extended, Socket(server) as late_hello:
        plain.command("subscribe", 1, stream)
        assert tambur.disconnect(user_id=user) == 0
        for mode in ("presence", "direct"):
            assert enable(plain, tambur, mode, stream, user) == "invalid_token"
            assert enable(plain, tambur, mode, stream, f"{user}2") == "ok"
        assert present(extended, tambur, stream, user) == "invalid_token"
        token = tambur.generate_direct_token(stream, user, extended.subscriber_id)
        assert extended.ask("subscribe", stream, {"direct": [user, token]}) == "invalid_token"
        assert extended.ask("subscribe", stream)["complete"] is True
        # A hello does not make the subscriber ID of the connection younger.
        late_hello.send("hello", 1, {})
        session = late_hello.json()[3]["session"]
        token = tambur.generate_presence_token(stream, user, late_hello.subscriber_id)
        late_hello.send("subscribe", 2, stream, {"presence": [user, token]})
        assert late_hello.json() == ["ack", 2, "invalid_token"]
    for key in (extended.hello["session"], session):
        with Client(server, session=key) as back:
            assert back.hello["resumed"] is True, "it was not ended"
            assert present(back, tambur, stream, user) == "invalid_token"
    with Socket(server) as fresh:
        fresh.command("subscribe", 1, stream)
        assert enable(fresh, tambur, "presence", stream, user) == "ok"


def test_a_disconnect_stands_for_all_its_apps_secrets() -> None:
    app = App(API_KEY, APP_ID, ("new", SECRET))
    with (
        in_background(Config(apps=(app,), port=0)) as server,
        Tambur(API_KEY, APP_ID, "new", server.url) as tambur,
    ):
        with Client(server) as client, Tambur(API_KEY, APP_ID, SECRET, server.url) as old:
            token = old.generate_presence_token("s", "alice", client.subscriber_id)
            tambur.disconnect(user_id="alice")
            assert client.ask("subscribe", "s", {"presence": ["alice", token]}) == "invalid_token"


def test_more_disconnects_than_the_limit_are_refused() -> None:
    limits = Limits(max_revocations=2)
    config = Config(apps=(APP, OTHER_APP), port=0, limits=limits)
    with in_background(config) as server:
        assert query(server, "disconnect", user_id="1").status == 200
        assert query(server, "disconnect", subscriber_id="2").status == 200
        refused = query(server, "disconnect", user_id="3")
        assert refused.status == 503
        assert b"the most that max_revocations allows" in refused.body
        assert query(server, "disconnect", user_id="3", app_id="other").status == 200


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "exactly one of subscriber_id and user_id must be given"),
        ({"subscriber_id": "a", "user_id": "b"}, "exactly one of subscriber_id and user_id must be given"),
        ({"subscriber_id": ""}, "invalid subscriber_id: a subscriber ID must not be empty"),
        ({"user_id": "a:b"}, "invalid user_id: a user ID must not contain ':'"),
        ({"user_id": "\x00"}, "invalid user_id: a user ID must not contain control characters"),
    ],
)
def test_a_wrong_target_is_400_with_the_rule(server: Server, fields: dict[str, Any], rule: str) -> None:
    answer = query(server, "disconnect", **fields)
    assert answer.status == 400
    assert rule in answer.body.decode()


def test_a_disconnect_with_a_stream_is_404(server: Server) -> None:
    assert query(server, "disconnect/s", user_id="a").status == 404


def test_a_used_nonce_disconnects_nobody(server: Server) -> None:
    used: dict[str, Any] = {"nonce": "used", "timestamp": int(time.time())}
    assert query(server, "disconnect", **used, subscriber_id="a").status == 200
    with Socket(server) as plain:
        answer = query(server, "disconnect", **used, subscriber_id=plain.subscriber_id)
        assert answer.status == 401
        assert plain.command("subscribe", 1, "s") == ["ack", 1, "ok"]


def test_the_log_has_the_number_of_ended_sessions(
    server: Server, tambur: Tambur, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tambur.server")
    with Socket(server) as plain:
        tambur.disconnect(subscriber_id=plain.subscriber_id)
        assert re.search("sessions ended by the application app=ws-bot-1 sessions=1", caplog.text)
        assert plain.subscriber_id not in caplog.text
