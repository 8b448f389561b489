"""The pages of docs/ by their names, wherever they stand in it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def path(name: str) -> Path:
    """The one file of docs/ that has this name."""
    (found,) = DOCS.rglob(name)
    return found


def text(name: str) -> str:
    return path(name).read_text("utf-8")
