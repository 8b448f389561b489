"""A subscriber of a server that has no extended connections."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from tambur import CommandRefusedError
from tambur.subscriber import Subscriber, Subscription

from ..support.app import API_KEY, APP_ID
from ..support.strange_server import GREETING, strange_server

TIMEOUT_S = 60


class OldServer:
    """Answers every command as a server without extensions, and notes the commands."""

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def __call__(self, connection: ServerConnection) -> None:
        connection.send(GREETING)
        for frame in connection:
            command = json.loads(frame)
            self.commands.append(command)
            answer = [0, "unknown command"] if command[0] == "hello" else [command[1], "ok"]
            if command[-1] == "wrong token":
                answer[1] = "invalid_token"
            connection.send(json.dumps(["ack", *answer]))


@pytest.mark.parametrize("reconnect", [True, False])
def test_a_server_without_extensions_is_used_without_them(*, reconnect: bool) -> None:
    old = OldServer()
    with strange_server(old) as host:
        with Subscriber(API_KEY, APP_ID, host, timeout=TIMEOUT_S, reconnect=reconnect) as one:
            assert one.subscribe("s", since="x") == Subscription(None, False, 0)
            assert one.subscribe("t", last=1, auth="token") == Subscription(None, True, 0)
            with pytest.raises(CommandRefusedError, match="invalid_token"):
                one.subscribe("u", auth="wrong token")
    assert old.commands == [
        ["hello", 1, {}],
        ["subscribe", 2, "s"],
        ["subscribe", 3, "t"],
        ["set_mode", 4, "auth", "t", "token"],
        ["subscribe", 5, "u"],
        ["set_mode", 6, "auth", "u", "wrong token"],
        ["unsubscribe", 7, "u"],
    ]
