"""The undocumented parts of uvicorn that the server overrides or uses: each allowed version must have them.

pyproject.toml allows the minor versions that these tests run with. To allow another one, run the suite with it.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from importlib.metadata import requires, version
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tambur.server import app
from tambur.server.transports.http_protocol import BoundedHttpProtocol

TESTED = {(0, 54)}
"""The minor versions of uvicorn that CI runs the suite with, the oldest and the newest."""

# Methods of these classes that override nothing.
OWN = {
    "_cancel_deadline",
    "_cancel_reading_deadline",
    "_forget_unanswered",
    "_refuse_headers",
    "_refuse_pieces",
    "_start_deadline",
    "_time_out",
    "_upgrade",
    "shed",
    "stop",
}


def of_self(cls: type[Any], context: type[ast.expr_context]) -> set[str]:
    """The attributes of ``self`` that the text of a class reads or writes."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and isinstance(node.ctx, context)
    }


@pytest.mark.parametrize(
    ("ours", "theirs"), [(app._Uvicorn, uvicorn.Server), (BoundedHttpProtocol, HttpToolsProtocol)]
)
def test_uvicorn_has_the_names_that_the_server_overrides_and_uses(ours: type[Any], theirs: type[Any]) -> None:
    there = set(dir(theirs)).union(*(of_self(cls, ast.Store) for cls in theirs.__mro__ if cls is not object))
    overridden = {name for name, value in vars(ours).items() if inspect.isfunction(value)} - OWN
    used = of_self(ours, ast.Load) - of_self(ours, ast.Store) - set(vars(ours))
    assert len(overridden) >= 4
    assert overridden | used <= there


def test_only_tested_minor_versions_of_uvicorn_are_allowed() -> None:
    (allowed,) = [line for line in requires("tambur") or () if re.match(r"uvicorn\b.*server", line)]
    low, high = (
        tuple(map(int, re.search(rf"{sign}(\d+)\.(\d+)", allowed).groups()))  # type: ignore[union-attr]
        for sign in (">=", "<")
    )
    assert low[0] == high[0] == 0
    assert {(0, minor) for minor in range(low[1], high[1])} == TESTED
    assert tuple(map(int, version("uvicorn").split(".")[:2])) in TESTED
