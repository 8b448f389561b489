"""The commands that talk to the server of ``TAMBUR_URL``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from ..credentials import Credentials
from ..errors import ConfigurationError, MessagesMissedError, TamburError
from ..printable import one_line
from ..protocol.tokens import TokenSigner
from ..publisher.client import Tambur
from ..publisher.debugging import DebuggingTambur
from .doctor import examine
from .output import print_json
from .progress import Progress

if TYPE_CHECKING:
    from ..subscriber import Subscriber


def run_publish(arguments: argparse.Namespace) -> int:
    """Publish a message, or each line of stdin."""
    made = DebuggingTambur if arguments.verbose else Tambur
    with made.from_env() as tambur:
        if arguments.message == "-":
            _publish_lines(tambur, arguments.stream, arguments.exclude)
        else:
            tambur.publish(arguments.stream, arguments.message, exclude=arguments.exclude)
        if isinstance(tambur, DebuggingTambur):
            print(_listening(tambur.nodes))
    return 0


def _listening(nodes: int | None) -> str:
    if nodes is None:
        return "published; the server does not say how many nodes listen"
    if nodes == 0:
        return "published; no node listens, so nobody received it: is the stream's name right?"
    return f"published; {nodes} {'node listens' if nodes == 1 else 'nodes listen'}"


def _publish_lines(tambur: Tambur, stream: str, exclude: str | None) -> None:
    if sys.stdin is None:
        raise ConfigurationError("'-' reads the messages from stdin, which is closed")
    with Progress(sys.stdin.fileno(), sys.stderr) as progress:
        for number, line in enumerate(sys.stdin.buffer, 1):
            try:
                text = line.removesuffix(b"\n").removesuffix(b"\r")
                tambur.publish(stream, text, exclude=exclude)
            except TamburError as error:
                raise TamburError(f"line {number}, after {number - 1} published: {error}") from error
            progress.advance(len(line))


def run_listen(arguments: argparse.Namespace) -> int:
    """Print each message of some streams as a line of JSON, until interrupted."""
    from ..subscriber import Subscriber  # noqa: PLC0415 - needs the subscriber's extra

    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("tambur: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    credentials = Credentials.from_env()
    with Subscriber.from_url(credentials.to_url(), reconnect=True) as subscriber:
        _subscribe(subscriber, _signer(credentials), arguments)
        print(subscriber.subscriber_id, flush=True)
        while True:
            try:
                message = subscriber.receive()
            except MessagesMissedError as missed:
                logging.getLogger("tambur").warning("%s", missed)
                continue
            fields = {name: value for name, value in message._asdict().items() if value is not None}
            print_json(fields)


class _Formatter(logging.Formatter):
    """Writes each record as one printable line, because it may quote a server."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _subscribe(subscriber: Subscriber, signer: TokenSigner, arguments: argparse.Namespace) -> None:
    for stream in arguments.streams:
        auth = signer.auth if arguments.auth else None
        subscriber.subscribe(stream, last=arguments.last, auth=auth)
        if arguments.presence is not None:
            subscriber.enable_presence(stream, arguments.presence, signer.presence)
        if arguments.direct is not None:
            subscriber.enable_direct(stream, arguments.direct, signer.direct)


def run_token(arguments: argparse.Namespace) -> int:
    """Print a token."""
    signer = _signer(Credentials.from_env())
    print(signer.sign(arguments.mode, arguments.stream, arguments.subscriber_id, arguments.user_id))
    return 0


def _signer(credentials: Credentials) -> TokenSigner:
    return TokenSigner(credentials.api_key, credentials.app_id, credentials.secret)


def run_doctor(_: argparse.Namespace) -> int:
    """Print the result of each check of the connection, and fail if a check fails."""
    credentials = Credentials.from_env()
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    all_good = True
    for finding in examine(credentials):
        mark, colour = ("ok", "32") if finding.is_good else ("FAILED", "31")
        shown = f"\x1b[{colour}m{mark:<6}\x1b[0m" if in_colour else f"{mark:<6}"
        print(f"{shown}  {finding.name}: {one_line(finding.text)}", flush=True)
        all_good = all_good and finding.is_good
    return 0 if all_good else 1
