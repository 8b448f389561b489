"""``tambur demo``: the whole way of a message of each kind, from ``Tambur.publish`` to who receives it."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from .client import Tambur
from .credentials import ENVIRONMENT_VARIABLE, Credentials
from .server import Config, in_background
from .subscriber import Message, Subscriber

ROOM = "lobby"
TIMEOUT_S = 10.0

_FENCE = "That was all."
_FENCE_MESSAGE = Message(ROOM, "public", _FENCE)


class _Step(NamedTuple):
    """What is done, and what each subscriber is to receive of it."""

    title: str
    alice: list[Message]
    bob: list[Message]


def run(credentials: Credentials, *, port: int, once: bool) -> int:
    """Start a server, send a message of each kind, and print what each subscriber received.

    Parameters:
        credentials: of the server's one app; their ``base_url`` is not looked at.
        port: to listen on; 0 picks a free one.
        once: return then, instead of serving until Ctrl-C.

    Returns:
        The exit status: 0 if every message arrived where it should and nowhere else.
    """
    with in_background(Config.from_credentials(credentials, port=port)) as server:
        print(f"Tambur is listening on {server.url}\n")
        address = (credentials.api_key, credentials.app_id)
        with (
            Tambur(*address, credentials.secret, server.url) as tambur,
            Subscriber(*address, server.url) as alice,
            Subscriber(*address, server.url) as bob,
        ):
            all_arrived = _play(tambur, alice, bob)
        if once or not all_arrived:
            return 0 if all_arrived else 1
        url = replace(credentials, base_url=server.url).to_url()
        print(f"\nUntil Ctrl-C, publish into the page at {server.url}/ from another terminal:\n")
        print(f"    export {ENVIRONMENT_VARIABLE}={url}")
        print(f"    tambur publish {ROOM} 'Hello, page'", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


def _play(tambur: Tambur, alice: Subscriber, bob: Subscriber) -> bool:
    all_arrived = True
    for step in _steps(tambur, alice, bob):
        print(step.title)
        # All that a step causes is ahead of this one, which everybody receives.
        tambur.publish(ROOM, _FENCE)
        for name, subscriber, expected in (("alice", alice, step.alice), ("bob", bob, step.bob)):
            received = list(iter(functools.partial(subscriber.receive, TIMEOUT_S), _FENCE_MESSAGE))
            print(f"    {name:<6}{', '.join(map(_describe, received)) or 'nothing'}")
            if received != expected:
                all_arrived = False
                print(f"    WRONG, it should be {', '.join(map(_describe, expected)) or 'nothing'}")
    return all_arrived


def _steps(tambur: Tambur, alice: Subscriber, bob: Subscriber) -> Iterator[_Step]:
    alice.subscribe(ROOM)
    bob.subscribe(ROOM)

    tambur.publish(ROOM, "Hello, everybody")
    hello = Message(ROOM, "public", "Hello, everybody")
    yield _Step(f"A message to {ROOM!r} reaches all its subscribers:", [hello], [hello])

    alice.enable_auth(ROOM, tambur.generate_auth_token)
    tambur.publish(f"auth:{ROOM}", "Hello, admins")
    admins = Message(ROOM, "auth", "Hello, admins")
    yield _Step(f"One to 'auth:{ROOM}' reaches those with a token for it, here alice:", [admins], [])

    tambur.publish(f"private:{bob.subscriber_id}", "Hello, Bob")
    private = Message("private", "private", "Hello, Bob")
    yield _Step("One to 'private:' and bob's subscriber id reaches bob:", [], [private])

    alice.enable_presence(ROOM, "alice", tambur.generate_presence_token)
    bob.enable_presence(ROOM, "bob", tambur.generate_presence_token)
    yield _Step(
        "With presence enabled, each learns who is there:",
        [Message(ROOM, "presence", "up", "bob")],
        [Message(ROOM, "presence", "up", "alice")],
    )

    alice.enable_direct(ROOM, "alice", tambur.generate_direct_token)
    bob.enable_direct(ROOM, "bob", tambur.generate_direct_token)
    alice.send_direct(ROOM, "bob", "Coffee?")
    yield _Step(
        "With direct enabled, alice writes to bob:", [], [Message(ROOM, "direct", "Coffee?", "alice")]
    )

    bob.disable_presence(ROOM)
    yield _Step("Bob disables presence:", [Message(ROOM, "presence", "down", "bob")], [])


def _describe(message: Message) -> str:
    match message:
        case Message(_, "presence", text, user_id):
            return f"presence: {user_id} is {text}"
        case Message(_, "direct", text, user_id):
            return f"direct from {user_id}: {text!r}"
        case _:
            return f"{message.kind}: {message.text!r}"
