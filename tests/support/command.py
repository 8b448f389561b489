"""The ``tambur`` command, in this process or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from unittest import mock

from tambur import cli

from .app import APP_ID, SECRET

TIMEOUT_S = 180


def environment(url: str | None, **variables: str) -> dict[str, str]:
    """The variables of this process, with ``TAMBUR_URL`` set to ``url`` or removed."""
    others = {name: value for name, value in os.environ.items() if name != "TAMBUR_URL"}
    return others | ({} if url is None else {"TAMBUR_URL": url}) | variables


def call(*words: str, url: str | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, which takes a hundredth of the time of :func:`run`."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(tempfile.TemporaryFile())
        source.write(stdin)
        source.seek(0)
        out, err = io.BytesIO(), io.BytesIO()
        streams: dict[str, IO[bytes]] = {"stdin": source, "stdout": out, "stderr": err}
        for name, stream in streams.items():
            text = stack.enter_context(io.TextIOWrapper(stream, "utf-8", write_through=True))
            stack.enter_context(mock.patch(f"sys.{name}", text))
        stack.enter_context(mock.patch.dict(os.environ, environment(url), clear=True))
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = int(end.code or 0)
        said = [written.getvalue().decode() for written in (out, err)]
    return subprocess.CompletedProcess(words, status, *said)


def run(
    *words: str, url: str | None = None, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a process of its own, and decode its output as UTF-8."""
    done = subprocess.run(
        [sys.executable, "-m", "tambur", *words],
        env=environment(url, **variables),
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def running(
    *words: str, url: str | None = None, stdin: IO[bytes] | None = None, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a command; kill it afterwards if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tambur", *words],
        env=environment(url, **variables),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_on_terminal(*words: str, url: str, stream: str, stdin: IO[str] | None = None) -> str:
    """Run a command whose ``stream`` ("stdout" or "stderr") is a terminal, and return its output there."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "tambur", *words],
            env=environment(url),
            stdin=stdin,
            stdout=theirs if stream == "stdout" else None,
            stderr=theirs if stream == "stderr" else None,
            check=True,
            timeout=TIMEOUT_S,
        )
        return os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of a process's output, as they come."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")


def failed(done: subprocess.CompletedProcess[str], said: str) -> bool:
    """Whether a command failed with one line on stderr that contains ``said``."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("tambur: "), done
    assert done.stderr.count("\n") == 1, done
    assert done.stderr.removesuffix("\n").isprintable(), done
    assert SECRET not in done.stderr.replace(APP_ID, "")
    return said in done.stderr


def interrupt(process: subprocess.Popen[str]) -> None:
    """Send Ctrl-C, and require that the process ends immediately and prints nothing."""
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    assert process.stderr is not None
    assert process.stderr.read() == ""
