"""The token views of the examples and of the documentation are there to be copied, also where mypy checks strictly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tambur

ROOT = Path(__file__).parents[2]
# mypy does not find a package that is installed in place.
PACKAGES = str(Path(tambur.__file__).parents[1])
SNIPPET = re.compile(r'^```python(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


def check(directory: Path, *names: str) -> None:
    done = subprocess.run(
        # No configuration file: that of this repository makes exceptions.
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "/dev/null", *names],
        cwd=directory, env=os.environ | {"MYPYPATH": PACKAGES}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("example", ["flask_chat", "django_chat"])
def test_an_example_passes_mypy_strict(example: str) -> None:
    check(ROOT / "examples" / example, "chat.py")


# Not the tutorial, whose code has no annotations.
PAGES = ["README.md", "docs/how-to/flask.md", "docs/how-to/django.md", "docs/how-to/fastapi.md"]


@pytest.mark.parametrize("page", PAGES)
def test_a_token_view_of_the_documentation_passes_mypy_strict(page: str, tmp_path: Path) -> None:
    views = []
    for title, code in SNIPPET.findall((ROOT / page).read_text("utf-8")):
        name = title or "snippet.py"
        if title or "def tambur_token" in code:
            (tmp_path / name).write_text(code, "utf-8")
        if "def tambur_token" in code:
            views.append(name)
    assert views
    check(tmp_path, *views)
