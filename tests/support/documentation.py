"""The pages of docs/ by their names, wherever they stand in it, and their snippets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def path(name: str) -> Path:
    """The one file of docs/ that has this name."""
    (found,) = DOCS.rglob(name)
    return found


def text(name: str) -> str:
    return path(name).read_text("utf-8")


def snippets(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def snippet(page: str, holding: str) -> str:
    (found,) = [code for code in snippets(page) if holding in code]
    return found


def run(code: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(code, "README.md", "exec"), namespace)  # noqa: S102 - that is the test
    return namespace
