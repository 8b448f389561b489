"""The files of how-to pages, written out and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import documentation

TIMEOUT_S = 300


def write_files(directory: Path, *names: str) -> None:
    """Write every snippet with a title under it."""
    for name in names:
        text = documentation.text(name)
        found = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
        assert found
        for title, content in found:
            path = directory / title
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, "utf-8")


def environment(directory: Path, **variables: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(directory), "PYTHONWARNINGS": "error"} | variables


def python(directory: Path, *words: str, **variables: str) -> str:
    """Run a module, which must succeed, and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=directory, env=environment(directory, **variables), capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def serving(directory: Path, *words: str, **variables: str) -> Iterator[str]:
    """Run a server of an application as its users do; yields the URL that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=directory, env=environment(directory, **variables), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"[Rr]unning on (http://\S+)", line):
                break
        else:
            pytest.fail("".join(said))
        reader = threading.Thread(target=process.stderr.read)  # so that it can always write
        reader.start()
        try:
            yield found[1]
        finally:
            process.terminate()
            reader.join()
