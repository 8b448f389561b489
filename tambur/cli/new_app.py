"""``tambur new-app``: the credentials of a new app, for a server and for an application."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
from pathlib import Path

from ..credentials import ENVIRONMENT_VARIABLE, Credentials
from ..errors import ConfigurationError


def make_credentials(app_id: str, base_url: str) -> Credentials:
    """Make a random key and secret for an app."""
    return Credentials(
        api_key=secrets.token_hex(16), app_id=app_id, secret=secrets.token_hex(20), base_url=base_url
    )


def run_new_app(arguments: argparse.Namespace) -> int:
    """Print the credentials, or write them to a file that only its owner can read."""
    configuration = _to_toml(make_credentials(arguments.app_id, "http://127.0.0.1:8080"))
    if arguments.output is None:
        print(configuration, end="")
        return 0
    path = Path(arguments.output)
    _write_secret(path, configuration)
    print(f"# {ENVIRONMENT_VARIABLE} for the application, read from {path}:")
    pattern = f"s/^# export {ENVIRONMENT_VARIABLE}=//p"
    read = shlex.join(["sed", "-n", pattern, str(path.absolute())])
    print(f'export {ENVIRONMENT_VARIABLE}="$({read})"')
    return 0


def _to_toml(credentials: Credentials) -> str:
    # A JSON string is also a TOML string.
    return "\n".join(
        [
            "# For the server's configuration file:",
            "[[apps]]",
            f"api_key = {json.dumps(credentials.api_key)}",
            f"app_id = {json.dumps(credentials.app_id)}",
            f"secrets = {json.dumps([credentials.secret])}",
            "# For the application, with the server's own host and port:",
            f"# export {ENVIRONMENT_VARIABLE}={credentials.to_url()}",
            "",
        ]
    )


def _write_secret(path: Path, text: str) -> None:
    """Create a file with mode 0600. It is whole, or it is not there."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists, and new-app overwrites no file; name another one") from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
