"""A message of each kind, from the publisher to the subscribers that receive it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from ...publisher.client import Tambur
from ...subscriber import Message, Subscriber

ROOM = "lobby"
TIMEOUT_S = 10.0

_FENCE = "That was all."
_FENCE_MESSAGE = Message(ROOM, "public", _FENCE)


class _Step(NamedTuple):
    """One action, and the messages that each subscriber should receive."""

    title: str
    alice: list[Message]
    bob: list[Message]


def play(tambur: Tambur, alice: Subscriber, bob: Subscriber) -> bool:
    """Send a message of each kind, and print the messages that each of two subscribers receives.

    Parameters:
        tambur: a publisher.
        alice: a subscriber of the same app, subscribed to nothing.
        bob: another one.

    Returns:
        Whether each message arrived at the right subscribers and at no other.
    """
    all_arrived = True
    for step in _steps(tambur, alice, bob):
        print(step.title)
        # Both subscribers receive this message, after everything that the step causes.
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
    yield _Step(f"A message to 'auth:{ROOM}' reaches subscribers with a token, here alice:", [admins], [])

    tambur.publish(f"private:{bob.subscriber_id}", "Hello, Bob")
    private = Message("private", "private", "Hello, Bob")
    yield _Step("A message to 'private:' and bob's subscriber ID reaches bob:", [], [private])

    alice.enable_presence(ROOM, "alice", tambur.generate_presence_token)
    bob.enable_presence(ROOM, "bob", tambur.generate_presence_token)
    yield _Step(
        "With presence enabled, alice and bob see each other:",
        [Message(ROOM, "presence", "up", "bob")],
        [Message(ROOM, "presence", "up", "alice")],
    )

    alice.enable_direct(ROOM, "alice", tambur.generate_direct_token)
    bob.enable_direct(ROOM, "bob", tambur.generate_direct_token)
    alice.send_direct(ROOM, "bob", "Coffee?")
    yield _Step(
        "With direct messages enabled, alice writes to bob:",
        [],
        [Message(ROOM, "direct", "Coffee?", "alice")],
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
