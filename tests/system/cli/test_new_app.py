"""``tambur new-app``."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tambur.credentials import Credentials
from tambur.server import Config

from ...support.command import TIMEOUT_S, call, environment, failed, run


def test_new_app_prints_an_app_for_a_file_and_its_url(tmp_path: Path) -> None:
    path = tmp_path / "tambur.toml"
    outputs = [call("new-app", 'caf"é').stdout for _ in range(2)]
    assert outputs[0] != outputs[1]
    path.write_text(outputs[0])
    (app,) = Config.from_toml(path).apps
    url = re.search(r"TAMBUR_URL=(\S+)", outputs[0])
    assert url is not None
    credentials = Credentials.from_url(url[1])
    assert (app.api_key, app.app_id, app.secrets) == (credentials.api_key, 'caf"é', (credentials.secret,))
    assert len(app.api_key) == 32
    assert len(app.secrets[0]) == 40
    assert failed(call("new-app", "a/b"), "app_id must not contain ':' or '/': 'a/b'")


def test_new_app_prints_ascii_to_an_ascii_terminal(tmp_path: Path) -> None:
    done = run("new-app", "café", PYTHONIOENCODING="ascii")
    path = tmp_path / "tambur.toml"
    path.write_text(done.stdout)
    assert Config.from_toml(path).apps[0].app_id == "café"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_file_is_readable_only_by_its_owner(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "it's mine.toml"
    before = os.umask(umask)
    try:
        done = call("new-app", "shop", "--output", str(path))
    finally:
        os.umask(before)
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (app,) = Config.from_toml(path).apps
    assert app.app_id == "shop"
    assert app.secrets[0] not in done.stdout
    # Its output sets TAMBUR_URL in any shell.
    shell = subprocess.run(
        ["sh", "-ec", f'{done.stdout}\nprintf %s "$TAMBUR_URL"'],
        cwd="/", env=environment(None), capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    credentials = Credentials.from_url(shell.stdout)
    assert (credentials.api_key, credentials.secret) == (app.api_key, *app.secrets)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "tambur.toml"
    path.write_text("mine")
    assert failed(call("new-app", "shop", "--output", str(path)), f"{path} exists, and new-app overwrites no")
    assert path.read_text() == "mine"
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "elsewhere.toml")
    assert failed(call("new-app", "shop", "--output", str(link)), f"{link} exists, and new-app overwrites no")
    assert not (tmp_path / "elsewhere.toml").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "tambur.toml"
    done = call("new-app", "shop", "--output", str(path))
    assert failed(done, f"cannot write {path}: No such file or directory")
    assert failed(call("new-app", "a/b", "--output", str(tmp_path / "x")), "app_id must not contain")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "tambur.toml"
    code = (
        "import resource, signal, sys\nfrom tambur.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "new-app", "shop", "--output", str(path)],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert failed(done, f"cannot write {path}: File too large")
    assert not path.exists()
