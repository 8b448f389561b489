"""How much of a JSON text takes long to parse: everything but its strings."""

from __future__ import annotations


def syntax_length(text: str) -> int:
    """Count the characters of a JSON text that are outside of strings.

    A million of them, such as ``[],[],``, take 0.3 s to parse. So a text from outside must not have many.
    """
    if "\\" in text:  # looking for two characters takes a hundred times as long
        text = text.replace("\\\\", "").replace('\\"', "")
    return sum(map(len, text.split('"')[::2]))
