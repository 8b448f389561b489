"""How much of a JSON text takes long to parse."""

from __future__ import annotations

import json

import pytest

from tambur.protocol.syntax import syntax_length


@pytest.mark.parametrize("string", ["", "x", "[{,", '",', "\\,", '\\",[', '\\\\"', "\u2028\x00"])
@pytest.mark.parametrize("ensure_ascii", [False, True])
def test_strings_do_not_count(string: str, ensure_ascii: bool) -> None:
    text = json.dumps(["x", string, {string: [string, 12]}], ensure_ascii=ensure_ascii)
    assert syntax_length(text) == len("[, , {: [, 12]}]")


@pytest.mark.parametrize("text", ["[],[]", "nonsense", "", "\\"])
def test_everything_else_counts(text: str) -> None:
    assert syntax_length(text) == len(text)
