"""``tambur demo``, apart from its page."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import requests

from tambur.cli.shell import tambur_command
from tambur.subscriber import Subscriber

from ...support.command import TIMEOUT_S, environment, lines, run, running


def test_each_message_arrives_at_the_right_subscribers_through_no_proxy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = run("demo", "--once", http_proxy=proxy, all_proxy=proxy)
    assert done.returncode == 0, done
    for shown in (
        "alice public: 'Hello, everybody'\n    bob   public: 'Hello, everybody'",
        "alice auth: 'Hello, admins'\n    bob   nothing",
        "alice nothing\n    bob   private: 'Hello, Bob'",
        "alice presence: bob is up\n    bob   presence: alice is up",
        "alice nothing\n    bob   direct from alice: 'Coffee?'",
        "alice presence: bob is down\n    bob   nothing",
    ):
        assert shown in done.stdout
    assert done.stderr == ""


def test_the_demo_fails_if_a_message_arrives_at_a_wrong_subscriber() -> None:
    code = (
        "import sys\nfrom tambur import cli\nfrom tambur.protocol.names import Kind\n"
        "from tambur.server.stream import Stream\nappend = Stream.append\n"
        "def leak(self, publication):\n"
        "    is_auth = publication.kind is Kind.AUTH\n"
        "    append(self, publication._replace(kind=Kind.PUBLIC) if is_auth else publication)\n"
        "Stream.append = leak\nsys.exit(cli.main(['demo', '--once']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1
    assert "bob   auth: 'Hello, admins'\n    WRONG, it should be nothing" in done.stdout


@pytest.mark.parametrize("is_on_path", [True, False])
def test_the_demo_prints_commands_that_publish_and_serves_until_ctrl_c(
    is_on_path: bool, tmp_path: Path
) -> None:
    scripts = [sysconfig.get_path("scripts")] if is_on_path else []
    path = os.pathsep.join([*scripts, "/usr/bin", "/bin"])
    with running("demo", PATH=path) as process:
        said = list(iter(functools.partial(next, lines(process)), "Ctrl-C ends the demo."))
        typed = [line.strip() for line in said if line.startswith("    ")][-2:]
        (console,) = [line.split()[-1] for line in said if line.startswith("The console shows")]
        assert requests.get(console, timeout=TIMEOUT_S).status_code == 200
        url = typed[0].removeprefix("export TAMBUR_URL=")
        assert typed[1].startswith("tambur publish" if is_on_path else f"{sys.executable} -m tambur publish")
        with Subscriber.from_url(url) as page:
            page.subscribe("lobby")
            subprocess.run(
                ["sh", "-e"], input="\n".join(typed), cwd=tmp_path, env=environment(None, PATH=path),
                text=True, timeout=TIMEOUT_S, check=True,
            )  # fmt: skip
            assert page.receive(TIMEOUT_S).text == "Hello, page"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_printed_command_is_quoted_for_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/home/it's me/.venv/bin/python")
    typed = tambur_command("publish", "a;b", "$(x) 'y'")
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {typed}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "/home/it's me/.venv/bin/python", "-m", "tambur", "publish", "a;b", "$(x) 'y'",
    ]  # fmt: skip


def test_a_tambur_of_another_installation_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "tambur"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tambur_command("doctor") == f"{sys.executable} -m tambur doctor"
