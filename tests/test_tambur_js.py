"""The reference of tambur.js names every member, option, event, state and code that its declarations have."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from .support import documentation

PAGE = documentation.text("tambur-js.md")
DECLARED = (resources.files("tambur.server") / "static" / "tambur.d.ts").read_text("utf-8")


def members(interface: str) -> set[str]:
    (body,) = re.findall(
        rf"^  interface {interface}\b.*?\{{\n(.*?)^  \}}", DECLARED, re.MULTILINE | re.DOTALL
    )
    return set(re.findall(r"^    (?:readonly )?(\w+)[?(:]", body, re.MULTILINE))


def words(union: str) -> set[str]:
    (body,) = re.findall(rf"^  type {union} =(.*?);\n\n", DECLARED, re.MULTILINE | re.DOTALL)
    return set(re.findall(r'(?:\||=|^) *"(\w+)"', body, re.MULTILINE))


def table(heading: str, column: int = 0) -> set[str]:
    """The code words in a column of the tables below a heading, without arguments and quotes."""
    (below,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    cells = [row.split(" | ")[column] for row in re.findall(r"^\| (.*) \|$", below, re.MULTILINE)]
    return {
        re.sub(r'\W.*|"', "", word.strip('"')) for cell in cells for word in re.findall("`([^`]+)`", cell)
    }


def test_the_page_shows_how_the_example_with_vite_connects() -> None:
    source = documentation.ROOT / "examples" / "vite_chat" / "src" / "connect.ts"
    assert f"```ts\n{source.read_text('utf-8')}```" in PAGE


@pytest.mark.parametrize(
    ("interface", "heading"), [("Connection", "Connect"), ("Stream", "Receive"), ("TamburError", "Errors")]
)
def test_a_table_has_every_member(interface: str, heading: str) -> None:
    assert len(members(interface)) > 3
    assert members(interface) - table(heading) == set()


def test_the_page_shows_every_option() -> None:
    shown = {
        name for name in members("Options") | members("StreamOptions") if re.search(rf"\b{name}\b", PAGE)
    }
    assert members("Options") | members("StreamOptions") == shown


def test_the_tables_of_events_have_every_event() -> None:
    assert table("Events") == members("ConnectionEvents") | members("StreamEvents")


def test_the_table_of_states_has_every_state() -> None:
    assert len(words("State")) == 5
    assert words("State") - table("States") == set()


def test_the_table_of_errors_has_every_code() -> None:
    codes = words("Code") | words("Refusal")
    assert len(codes) > 10
    assert codes - table("Errors") == set()
