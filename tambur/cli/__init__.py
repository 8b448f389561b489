"""The ``tambur`` command: its usage, and how a command ends.

Exit status: 0 success, 1 failure (one line on stderr says why), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..credentials import ENVIRONMENT_VARIABLE
from ..errors import TamburError
from ..printable import one_line
from ..protocol.options import MAX_LAST
from ..protocol.tokens import Mode
from .client import run_doctor, run_listen, run_publish, run_token
from .new_app import run_new_app
from .queries import run_disconnect, run_history, run_streams, run_users
from .serve import run_demo, run_hash_password, run_serve

WRONG_USAGE = 2  # as argparse has it
INTERRUPTED = 128 + 2  # a shell reports this for a command that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters:
        argv: its words, without the program's name; ``None`` takes those of the process.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack some characters
    parser = _parser()
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser.print_help(sys.stderr)
        return WRONG_USAGE
    arguments = parser.parse_args(words)
    try:
        status: int = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (TamburError, ImportError, OSError) as error:
        # A closed pipe is not an error.
        if not isinstance(error, BrokenPipeError):
            text = (isinstance(error, OSError) and error.strerror) or str(error)
            print(f"tambur: {one_line(text)}", file=sys.stderr)
        _discard_output()
        return 1
    return status


def _discard_output() -> None:
    """Drop output that cannot be written, so that Python does not complain about it at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_EXAMPLES = {
    "demo": ["tambur demo", "tambur demo --once"],
    "serve": [
        "tambur serve",
        "tambur serve --host 0.0.0.0 --config tambur.toml",
        "tambur serve --port 443 --tls-cert fullchain.pem --tls-key privkey.pem",
    ],
    "hash-password": ["tambur hash-password", 'echo "$PASSWORD" | tambur hash-password'],
    "publish": [
        "tambur publish news 'Hello, everybody'",
        "tambur publish auth:news 'Hello, admins'",
        "tail -f app.log | tambur publish log -",
    ],
    "listen": [
        "tambur listen news",
        "tambur listen news chat --auth --presence alice --direct alice",
        "tambur listen news --last 20",
    ],
    "token": ["tambur token auth news SUBSCRIBER_ID", "tambur token presence news alice SUBSCRIBER_ID"],
    "history": ["tambur history news", "tambur history news --limit 20"],
    "users": ["tambur users lobby"],
    "streams": ["tambur streams", "tambur streams room-"],
    "disconnect": ["tambur disconnect --user alice", "tambur disconnect --subscriber SUBSCRIBER_ID"],
    "doctor": ["tambur doctor"],
    "new-app": ["tambur new-app shop --output tambur.toml", "tambur new-app shop"],
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tambur",
        description="Publish messages to browsers over WebSockets, and serve them.",
        epilog="'tambur demo' shows it work. 'tambur serve' starts a server and prints its TAMBUR_URL.\n\n"
        "publish, listen, token, history, users, streams, disconnect and doctor read the environment\n"
        f"variable {ENVIRONMENT_VARIABLE}:\n"
        "  http://API_KEY:SECRET@HOST[:PORT]/app/APP_ID\n\n"
        "exit status: 0 success, 1 failure (stderr says why), 2 wrong usage, 130 interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tambur {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        examples = "".join(f"\n  {example}" for example in _EXAMPLES[name])
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"examples:{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    added = command("demo", run_demo, "start a server, send a message of each kind and show who receives it")
    added.add_argument("--port", type=_port, default=0, help="port to listen on (default: a free one)")
    added.add_argument(
        "--once", action="store_true", help="exit afterwards: 0 if each message arrived as expected"
    )

    added = command("serve", run_serve, "run the server until it is interrupted")
    added.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    added.add_argument("--port", type=_port, help="port to listen on, 0 for a free one (default: 8080)")
    added.add_argument("--config", metavar="FILE", help="TOML file with the apps and the settings")
    added.add_argument(
        "--broker",
        metavar="URL",
        help="broker that connects several servers, such as redis://HOST (default: memory://, for one)",
    )
    added.add_argument(
        "--console-port",
        type=_port,
        metavar="PORT",
        help="port of the console, a page that shows what the server does, and of the metrics for "
        "Prometheus, 0 for a free one; further workers use PORT + 1 and so on",
    )
    added.add_argument(
        "--console-host",
        metavar="HOST",
        help="address that the console listens on (default: 127.0.0.1); others need a console_password",
    )
    added.add_argument(
        "--console-insecure",
        action="store_true",
        default=None,
        help="let the console take its password without TLS",
    )
    added.add_argument("--tls-cert", metavar="FILE", help="PEM file with the certificate, for https and wss")
    added.add_argument("--tls-key", metavar="FILE", help="PEM file with its key (default: in the same file)")
    added.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes; more than 1 needs --broker redis://... (default: 1)",
    )

    added.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="debug also logs each publish and who receives it (default: info)",
    )

    command("hash-password", run_hash_password, "make the hash of a password, for console_password")

    added = command("publish", run_publish, "publish a message")
    added.add_argument("stream", metavar="STREAM", help="STREAM, auth:STREAM or private:SUBSCRIBER_ID")
    added.add_argument("message", metavar="MESSAGE", help="the text, or - to publish each line of stdin")
    added.add_argument(
        "--exclude", metavar="SUBSCRIBER_ID", help="this subscriber does not receive the message"
    )
    added.add_argument(
        "--verbose",
        action="store_true",
        help="print how many nodes listen; if refused, what the server signed",
    )

    added = command(
        "listen", run_listen, "print its subscriber ID, then each message of streams as a line of JSON"
    )
    added.add_argument("streams", metavar="STREAM", nargs="+", help="a name without a prefix such as auth:")
    added.add_argument("--auth", action="store_true", help="also print the messages to auth:STREAM")
    added.add_argument(
        "--last",
        type=_last,
        metavar="N",
        help="begin with the newest N kept messages, 0 to 1000; a stream needs an [[apps.history]] entry",
    )
    added.add_argument("--presence", metavar="USER", help="be present as USER, and print who joins or leaves")
    added.add_argument("--direct", metavar="USER", help="also print the direct messages to USER")

    added = command("token", run_token, "print a token that lets a subscriber enable a mode")
    modes = added.add_subparsers(metavar="MODE", required=True)
    for mode in Mode:
        added = modes.add_parser(mode.value, help=f"for the {mode.value} mode")
        added.set_defaults(mode=mode, user_id=None)
        added.add_argument("stream", metavar="STREAM")
        if mode is not Mode.AUTH:
            added.add_argument("user_id", metavar="USER_ID")
        added.add_argument("subscriber_id", metavar="SUBSCRIBER_ID")

    added = command("history", run_history, "print the kept messages of a stream, each as a line of JSON")
    added.add_argument("stream", metavar="STREAM")
    added.add_argument(
        "--limit", type=int, default=100, metavar="N", help="how many, 1 to 1000 (default: 100)"
    )
    added.add_argument(
        "--since", metavar="POSITION", help="print those after this position (default: the newest)"
    )

    added = command("users", run_users, "print who is present on a stream, one user a line")
    added.add_argument("stream", metavar="STREAM")

    added = command("streams", run_streams, "print the streams with subscribers, each as a line of JSON")
    added.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="how their names begin")

    added = command("disconnect", run_disconnect, "end the sessions of a user, or of one subscriber")
    target = added.add_mutually_exclusive_group(required=True)
    target.add_argument("--user", metavar="ID", help="a user; ends all sessions with a mode as that user")
    target.add_argument("--subscriber", metavar="ID", help="the ID of a subscriber")

    command("doctor", run_doctor, f"check the connection to {ENVIRONMENT_VARIABLE}")

    added = command("new-app", run_new_app, "make the credentials of a new app")
    added.add_argument("app_id", metavar="APP_ID")
    added.add_argument(
        "--output",
        metavar="FILE",
        help="new file to write them to, readable only by you (default: stdout)",
    )
    return parser


def _last(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_LAST:
        raise argparse.ArgumentTypeError(f"N must be a number from 0 to {MAX_LAST}, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port must be a number from 0 to 65535, not {text!r}")
    return int(text)
