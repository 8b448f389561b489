"""Text from elsewhere, made safe to show: no escape sequence, no line break, no change of direction.

A terminal acts on control characters, among them ESC and U+009B, which begin its commands. Bidirectional
controls make a line read as another one. Python knows all of these as not printable.
"""

from __future__ import annotations

import json
from typing import Any


def one_line(text: str, max_code_points: int | None = None) -> str:
    """Make one printable line of a text.

    Parameters:
        text: any text. A run of whitespace becomes one space, an unprintable character its Python escape.
        max_code_points: the text is cut after so many; ``None`` keeps all of it.
    """
    line = " ".join(text.split())
    if max_code_points is not None and len(line) > max_code_points:
        line = f"{line[:max_code_points]}..."
    return printable(line)


def printable(text: str) -> str:
    """Replace each unprintable character of a text by its Python escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_line(value: Any, *, ascii_only: bool = False) -> str:
    """Encode a value as one printable line of JSON.

    Parameters:
        value: what :func:`json.dumps` takes.
        ascii_only: whether to escape printable non-ASCII text, too.
    """
    line = json.dumps(value, ensure_ascii=ascii_only)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
