"""The token views of the examples and of the documentation are there to be copied, also where mypy checks strictly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import tambur

ROOT = Path(__file__).parents[2]
# mypy does not find a package that is installed in place.
PACKAGES = str(Path(tambur.__file__).parents[1])
SNIPPET = re.compile(r'^```python(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


EXAMPLES = ["flask_chat", "django_chat"]
# Not the tutorial, whose code has no annotations.
PAGES = ["README.md", "docs/how-to/flask.md", "docs/how-to/django.md", "docs/how-to/fastapi.md"]


def test_each_token_view_passes_mypy_strict(tmp_path: Path) -> None:
    """One run of mypy for all: most of its time goes into their common imports."""
    views = []

    def write(name: str, code: str) -> None:
        path = tmp_path / name
        assert not path.exists()
        path.write_text(code, "utf-8")
        if "def tambur_token" in code:
            views.append(name)

    for example in EXAMPLES:
        write(f"{example}.py", (ROOT / "examples" / example / "chat.py").read_text("utf-8"))
    for page in PAGES:
        found = len(views)
        for title, code in SNIPPET.findall((ROOT / page).read_text("utf-8")):
            if title or "def tambur_token" in code:
                write(title or f"{Path(page).stem}_view.py", code)
        assert len(views) == found + 1, page
    done = subprocess.run(
        # No configuration file: that of this repository makes exceptions.
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "/dev/null", *views],
        cwd=tmp_path, env=os.environ | {"MYPYPATH": PACKAGES}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
