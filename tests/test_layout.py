"""The layout of the tests: code that several modules share is in tests/support, and no module is long."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MAX_LINES = 400


def imported_test_modules(source: str) -> list[str]:
    """Find imports of a module that only pytest may have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        else:
            continue
        found += [name for name in names if name.rpartition(".")[2].startswith("test_")]
    return found


def test_no_module_is_long() -> None:
    lines = {str(path): path.read_text("utf-8").count("\n") for path in TESTS.rglob("*.py")}
    assert len(lines) > 100
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_no_test_module_imports_another() -> None:
    found = {
        str(path.relative_to(TESTS)): names
        for path in TESTS.rglob("*.py")
        if (names := imported_test_modules(path.read_text("utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line", ["from .test_hub import Client", "from . import test_hub", "import tests.server.test_hub as hub"]
)
def test_an_import_of_a_test_module_is_found(line: str) -> None:
    assert len(imported_test_modules(line)) == 1
