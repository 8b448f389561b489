"""Text from elsewhere as printable text."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tambur.printable import json_line, one_line

from .support.strange_server import HARMLESS, HOSTILE

anything = st.text(st.characters(codec=None))


def test_characters_that_a_terminal_acts_on_become_escapes() -> None:
    assert one_line(HOSTILE) == HARMLESS
    assert one_line("\u200d\u00ad\ufeff\ud800\U000e0001") == "\\u200d\\xad\\ufeff\\ud800\\U000e0001"


def test_printable_text_stays_as_it_is() -> None:
    assert one_line("é 🥁 日本 \\x1b") == "é 🥁 日本 \\x1b"
    assert json_line({"é": "🥁"}) == '{"é": "🥁"}'
    assert json_line({"é": "🥁"}, ascii_only=True) == '{"\\u00e9": "\\ud83e\\udd41"}'


def test_whitespace_becomes_one_space() -> None:
    assert one_line(" a\r\n\tb\u2028c\x85d\u00a0e\n") == "a b c d e"


def test_long_text_is_cut_before_it_is_escaped() -> None:
    assert one_line("\x1b" * 11, 10) == "\\x1b" * 10 + "..."
    assert one_line("x" * 10, 10) == "x" * 10


@given(anything)
def test_a_line_is_printable(text: str) -> None:
    assert one_line(text).isprintable()


@given(anything)
def test_a_line_of_json_is_printable_and_the_same_json(text: str) -> None:
    line = json_line([text])
    assert line.isprintable()
    assert json.loads(line) == [text]
    assert json_line([text], ascii_only=True).isascii()
