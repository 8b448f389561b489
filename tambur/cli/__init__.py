"""The ``tambur`` command. Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .. import __version__
from ..credentials import ENVIRONMENT_VARIABLE, Credentials
from ..errors import ConfigurationError, TamburError
from ..protocol.tokens import Mode, TokenSigner
from ..publisher.client import Tambur
from .doctor import examine
from .progress import Progress

if TYPE_CHECKING:
    from ..server import Config
    from ..subscriber import Subscriber

INTERRUPTED = 128 + 2  # what a shell reports of a command that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters:
        argv: its words, without the program's name; ``None`` takes those of the process.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal need not know every character
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (TamburError, ImportError, OSError) as error:
        # Whoever read our output may have gone, which is his right.
        if not isinstance(error, BrokenPipeError):
            _complain(error)
        _give_up_output()
        return 1
    return status


def _complain(error: Exception, where: str = "") -> None:
    """Say in one line what went wrong, whatever an answer from elsewhere holds."""
    text = " ".join(f"{where}{error}".split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    print(f"tambur: {shown}", file=sys.stderr)


def _give_up_output() -> None:
    """What cannot be written is let go; else Python would complain of it once more at its exit."""
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
    "publish": [
        "tambur publish news 'Hello, everybody'",
        "tambur publish auth:news 'Hello, admins'",
        "tail -f app.log | tambur publish log -",
    ],
    "listen": ["tambur listen news", "tambur listen news chat --auth --presence alice --direct alice"],
    "token": ["tambur token auth news SUBSCRIBER_ID", "tambur token presence news alice SUBSCRIBER_ID"],
    "doctor": ["tambur doctor"],
    "new-app": ["tambur new-app shop > tambur.toml"],
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tambur",
        description="Publish messages to browsers over WebSockets, and serve them.",
        epilog=f"publish, listen, token and doctor read the environment variable {ENVIRONMENT_VARIABLE}:\n"
        "  http://API_KEY:SECRET@HOST[:PORT]/app/APP_ID\n\n"
        "exit status: 0 done, 1 failed (stderr says why), 2 wrong usage, 130 interrupted",
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

    demo = command("demo", _demo, "start a server, send a message of each kind, and show who received what")
    demo.add_argument("--port", type=_port, default=0, help="port to listen on (default: a free one)")
    demo.add_argument("--once", action="store_true", help="exit afterwards: 0 if all arrived where it should")

    serve = command("serve", _serve, "run the server until it is interrupted")
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=_port, help="port to listen on, 0 for a free one (default: 8080)")
    serve.add_argument("--config", metavar="FILE", help="TOML file with the apps and the settings")
    serve.add_argument(
        "--broker",
        metavar="URL",
        help="what connects nodes, such as redis://HOST (default: memory://, for one)",
    )
    serve.add_argument(
        "--metrics-port",
        type=_port,
        metavar="PORT",
        help="Prometheus finds metrics there, on 127.0.0.1; those of further workers at PORT + 1 and so on",
    )
    serve.add_argument("--tls-cert", metavar="FILE", help="PEM file with the certificate, for https and wss")
    serve.add_argument("--tls-key", metavar="FILE", help="PEM file with its key, if that is in another file")

    serve.add_argument("--workers", type=int, metavar="N", help="processes, over 1 with a Redis (default: 1)")

    publish = command("publish", _publish, "publish a message")
    publish.add_argument("stream", metavar="STREAM", help="STREAM, auth:STREAM or private:SUBSCRIBER_ID")
    publish.add_argument("message", metavar="MESSAGE", help="the text, or - for one message a line of stdin")

    listen = command("listen", _listen, "print the messages of streams, each as a line of JSON")
    listen.add_argument("streams", metavar="STREAM", nargs="+")
    listen.add_argument("--auth", action="store_true", help="also what is published to auth:STREAM")
    listen.add_argument("--presence", metavar="USER", help="be there as USER, and print who joins and leaves")
    listen.add_argument("--direct", metavar="USER", help="also the direct messages to USER")

    token = command("token", _token, "print a token that lets a subscriber enable a mode")
    modes = token.add_subparsers(metavar="MODE", required=True)
    for mode in Mode:
        added = modes.add_parser(mode.value, help=f"for the {mode.value} mode")
        added.set_defaults(mode=mode, user_id=None)
        added.add_argument("stream", metavar="STREAM")
        if mode is not Mode.AUTH:
            added.add_argument("user_id", metavar="USER_ID")
        added.add_argument("subscriber_id", metavar="SUBSCRIBER_ID")

    command("doctor", _doctor, f"check that everything works which {ENVIRONMENT_VARIABLE} is for")

    new_app = command("new-app", _new_app, "print fresh credentials")
    new_app.add_argument("app_id", metavar="APP_ID")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _fresh_credentials(app_id: str, base_url: str) -> Credentials:
    return Credentials(
        api_key=secrets.token_hex(16), app_id=app_id, secret=secrets.token_hex(20), base_url=base_url
    )


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import run  # noqa: PLC0415 - needs the server's extra

    return run(_fresh_credentials("demo", "http://127.0.0.1"), port=arguments.port, once=arguments.once)


def _serve(arguments: argparse.Namespace) -> int:
    from ..server import Config, serve  # noqa: PLC0415 - needs the server's extra
    from ..server.logs import Formatter  # noqa: PLC0415 - as above

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    given = {
        name: value
        for name in ("host", "port", "broker", "workers", "metrics_port", "tls_cert", "tls_key")
        if (value := getattr(arguments, name)) is not None
    }
    fresh = None
    if arguments.config is not None:
        config = dataclasses.replace(Config.from_toml(arguments.config), **given)
    elif os.environ.get(ENVIRONMENT_VARIABLE):
        config = Config.from_credentials(Credentials.from_env(), **given)
    else:
        fresh = _fresh_credentials("app", "http://127.0.0.1")
        config = Config.from_credentials(fresh, **given)
        _require_loopback(config)

    def announce(url: str) -> None:
        if fresh is not None:
            print(f"export {ENVIRONMENT_VARIABLE}={fresh.at(url).to_url()}")
        print(f"Tambur is listening on {url}", flush=True)

    serve(config, announce)
    return 0


def _require_loopback(config: Config) -> None:
    if not config.is_loopback:
        raise ConfigurationError(
            f"to listen on {config.host}, which others can reach, name the apps in a file (--config) or "
            f"one in {ENVIRONMENT_VARIABLE}; 'tambur new-app APP_ID' prints credentials for either"
        )


def _publish(arguments: argparse.Namespace) -> int:
    with Tambur.from_env() as tambur:
        if arguments.message != "-":
            tambur.publish(arguments.stream, arguments.message)
            return 0
        if sys.stdin is None:
            raise ConfigurationError("'-' reads the messages from stdin, which is closed")
        with Progress(sys.stdin.fileno(), sys.stderr) as progress:
            for number, line in enumerate(sys.stdin.buffer, 1):
                try:
                    tambur.publish(arguments.stream, line.removesuffix(b"\n").removesuffix(b"\r"))
                except TamburError as error:
                    progress.close()
                    _complain(error, f"line {number}, after {number - 1} published: ")
                    return 1
                progress.advance(len(line))
    return 0


def _listen(arguments: argparse.Namespace) -> int:
    from ..subscriber import Subscriber  # noqa: PLC0415 - needs the subscriber's extra

    logging.basicConfig(level=logging.WARNING, format="tambur: %(message)s")
    credentials = Credentials.from_env()
    with Subscriber.from_url(credentials.to_url(), reconnect=True) as subscriber:
        _subscribe(subscriber, _signer(credentials), arguments)
        print(subscriber.subscriber_id, flush=True)
        for message in subscriber:
            fields = {name: value for name, value in message._asdict().items() if value is not None}
            print(json.dumps(fields, ensure_ascii=False), flush=True)
    return 0


def _subscribe(subscriber: Subscriber, signer: TokenSigner, arguments: argparse.Namespace) -> None:
    for stream in arguments.streams:
        subscriber.subscribe(stream)
        if arguments.auth:
            subscriber.enable_auth(stream, signer.auth)
        if arguments.presence is not None:
            subscriber.enable_presence(stream, arguments.presence, signer.presence)
        if arguments.direct is not None:
            subscriber.enable_direct(stream, arguments.direct, signer.direct)


def _token(arguments: argparse.Namespace) -> int:
    signer = _signer(Credentials.from_env())
    print(signer.sign(arguments.mode, arguments.stream, arguments.subscriber_id, arguments.user_id))
    return 0


def _signer(credentials: Credentials) -> TokenSigner:
    return TokenSigner(credentials.api_key, credentials.app_id, credentials.secret)


def _doctor(_: argparse.Namespace) -> int:
    credentials = Credentials.from_env()
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    all_good = True
    for finding in examine(credentials):
        mark, colour = ("ok", "32") if finding.is_good else ("FAILED", "31")
        shown = f"\x1b[{colour}m{mark:<6}\x1b[0m" if in_colour else f"{mark:<6}"
        print(f"{shown}  {finding.name}: {finding.text}", flush=True)
        all_good = all_good and finding.is_good
    return 0 if all_good else 1


def _new_app(arguments: argparse.Namespace) -> int:
    credentials = _fresh_credentials(arguments.app_id, "http://127.0.0.1:8080")
    print("# For the server's configuration file:")
    print("[[apps]]")
    for name, value in (
        ("api_key", credentials.api_key),
        ("app_id", credentials.app_id),
        ("secrets", [credentials.secret]),
    ):
        # A JSON string is a TOML string, too.
        print(f"{name} = {json.dumps(value)}")
    print("# For the application, with the server's own host and port:")
    print(f"# export {ENVIRONMENT_VARIABLE}={credentials.to_url()}")
    return 0
