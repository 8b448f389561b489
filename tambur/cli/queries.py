"""The commands that query the server of ``TAMBUR_URL``, and ``disconnect``."""

from __future__ import annotations

import argparse

from ..errors import TamburError
from ..printable import printable
from ..publisher.client import Tambur
from .output import print_json


def run_history(arguments: argparse.Namespace) -> int:
    """Print each kept message of a stream as a line of JSON."""
    with Tambur.from_env() as tambur:
        history = tambur.history(arguments.stream, limit=arguments.limit, since=arguments.since)
    if not history.complete:
        raise TamburError(
            f"messages to {arguments.stream!r} after {arguments.since!r} may be missing; "
            "leave --since out to see those that are kept"
        )
    for message in history.messages:
        print_json(message._asdict())
    return 0


def run_users(arguments: argparse.Namespace) -> int:
    """Print each present user of a stream as a line."""
    with Tambur.from_env() as tambur:
        for user_id in tambur.users(arguments.stream):
            print(printable(user_id))
    return 0


def run_streams(arguments: argparse.Namespace) -> int:
    """Print each stream with subscribers as a line of JSON."""
    with Tambur.from_env() as tambur:
        for info in tambur.streams(arguments.prefix):
            print_json(info._asdict())
    return 0


def run_disconnect(arguments: argparse.Namespace) -> int:
    """End sessions, and print how many they were."""
    with Tambur.from_env() as tambur:
        count = tambur.disconnect(subscriber_id=arguments.subscriber, user_id=arguments.user)
    print(f"{count} {'session' if count == 1 else 'sessions'} ended")
    return 0
