"""Every regular expression of the package takes linear time for any input."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tambur

PACKAGE = Path(tambur.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# These try a pattern at one position. The other methods try it at each, so a repeat without a bound takes
# quadratic time.
ANCHORED = {"match", "fullmatch"}
UNBOUNDED = r"[*+]|\{\d+,\}"
FUNCTIONS = {"search", "sub", "subn", "split", "findall", "finditer"} | ANCHORED


@functools.cache
def uses(source: str) -> list[tuple[str, str]]:
    """Return each pattern of a module, with the method that applies it."""
    return list(find_uses(source))


def find_uses(source: str) -> Iterator[tuple[str, str]]:
    nodes = list(ast.walk(ast.parse(source)))
    compiled: dict[str, str] = {}
    for node in nodes:
        match node:
            case ast.Assign(
                [ast.Name(name)], ast.Call(ast.Attribute(ast.Name("re"), "compile"), [pattern, *_])
            ):
                compiled[name] = text_of(pattern)
    for node in nodes:
        match node:
            case ast.Call(ast.Attribute(ast.Name("re"), method), [pattern, *_]) if method in FUNCTIONS:
                yield text_of(pattern), method
            case ast.Call(ast.Attribute(ast.Name(name), method)) if name in compiled:
                yield compiled[name], method


def text_of(pattern: ast.expr) -> str:
    value = ast.literal_eval(pattern)
    return value.decode("latin-1") if isinstance(value, bytes) else value


def violations(source: str) -> list[str]:
    found = []
    for pattern, method in uses(source):
        plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)
        if method not in ANCHORED and re.search(UNBOUNDED, plain):
            found.append(f"{method} with a repeat without a bound: {pattern}")
        if re.search(rf"(?:{UNBOUNDED})[^()]*\)[*+{{]", plain):
            found.append(f"{method} with a repeat within a repeat: {pattern}")
    return found


def test_no_pattern_takes_more_than_linear_time() -> None:
    found = {str(path): violations(path.read_text("utf-8")) for path in MODULES}
    assert {path: patterns for path, patterns in found.items() if patterns} == {}


def test_the_search_finds_the_patterns_of_the_package() -> None:
    assert sum(len(uses(path.read_text("utf-8"))) for path in MODULES) >= 10


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (r're.search(r":[^\]]*\Z", host)', 1),
        ('P = re.compile(b"a+b")\nP.sub(b"", x)', 1),
        ('P = re.compile("(a+)+")\nP.fullmatch(x)', 1),
        ('P = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}")\nP.sub("", x)', 0),
        (r're.search(r"[*+\s]", x)', 0),
        (r're.split(r"\*\+", x)', 0),
        ('re.fullmatch("[^/]+/(.*)", x)', 0),
    ],
)
def test_a_violation_is_found(source: str, found: int) -> None:
    assert len(violations(source)) == found
