"""``tambur serve`` and ``tambur demo``: the commands that start a server."""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import logging
import os
import sys
from typing import TYPE_CHECKING

from ..credentials import ENVIRONMENT_VARIABLE, Credentials
from ..errors import ConfigurationError
from .new_app import make_credentials

if TYPE_CHECKING:
    from ..server import Config

_KEEP = "tambur new-app APP_ID --output tambur.toml, then tambur serve --config tambur.toml"
_SETTINGS = (
    "host",
    "port",
    "broker",
    "workers",
    "console_port",
    "console_host",
    "console_insecure",
    "tls_cert",
    "tls_key",
)

logger = logging.getLogger("tambur.server")


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo."""
    from .demo import run  # noqa: PLC0415 - needs the server's extra

    return run(make_credentials("demo", "http://127.0.0.1"), port=arguments.port, once=arguments.once)


def run_serve(arguments: argparse.Namespace) -> int:
    """Run the server, with the apps of a file, the app of ``TAMBUR_URL``, or a new app."""
    from ..server import Config, serve  # noqa: PLC0415 - needs the server's extra
    from ..server.logs import Formatter, line  # noqa: PLC0415 - as above

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logger.setLevel(arguments.log_level.upper())
    given = {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    new = None
    if arguments.config is not None:
        config = dataclasses.replace(Config.from_toml(arguments.config), **given)
    elif os.environ.get(ENVIRONMENT_VARIABLE):
        config = Config.from_credentials(Credentials.from_env(), **given)
    else:
        new = make_credentials("app", "http://127.0.0.1")
        config = Config.from_credentials(new, **given)
        _require_loopback(config)

    def announce(url: str) -> None:
        if new is not None:
            logger.info(line("made an app for this run alone", to_keep_one=_KEEP))
            print(f"export {ENVIRONMENT_VARIABLE}={new.at(url).to_url()}")
        print(f"Tambur is listening on {url}", flush=True)

    serve(config, announce)
    return 0


def run_hash_password(_: argparse.Namespace) -> int:
    """Ask for a password, or read it from stdin, and print its hash."""
    from ..server.console.password import hash_password  # noqa: PLC0415 - needs the server's extra

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("The same again: ") != password:
            raise ConfigurationError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        print(hash_password(password))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return 0


def _require_loopback(config: Config) -> None:
    if not config.is_loopback:
        raise ConfigurationError(
            f"to listen on {config.host}, which others can reach, name the apps in a file (--config) "
            f"or one app in {ENVIRONMENT_VARIABLE}; 'tambur new-app APP_ID' makes credentials for both"
        )
