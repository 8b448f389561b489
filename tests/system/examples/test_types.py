"""The examples are there to be copied, also into an application that mypy checks strictly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tambur

from .chat import EXAMPLES

# mypy does not find a package that is installed in place.
PACKAGES = str(Path(tambur.__file__).parents[1])


@pytest.mark.parametrize("example", ["flask_chat", "django_chat"])
def test_an_example_passes_mypy_strict(example: str) -> None:
    done = subprocess.run(
        # No configuration file: that of this repository makes exceptions.
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "/dev/null", "chat.py"],
        cwd=EXAMPLES / example, env=os.environ | {"MYPYPATH": PACKAGES}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
