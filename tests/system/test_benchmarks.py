"""The benchmarks run. They need a checkout, so a test run away from one leaves them out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import plot
from benchmarks.__main__ import PARTS
from benchmarks.load import loaded
from benchmarks.peers import ROOT, MissingError
from benchmarks.servers import STARTERS, TAMBUR

from ..support import documentation


def test_a_part_is_measured_and_written_to_the_page(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "publish", "batch", "--quick", "--page", page],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    text = page.read_text("utf-8")
    assert text.startswith("# Performance\n")
    assert text.endswith(done.stdout.rstrip("\n") + "\n")
    if shutil.which("cc") is None:
        assert "Not measured: install gcc" in text
        return
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| tambur | ")]
    assert [float(row[1].replace(",", "")) > 0 for row in rows] == [True, True]
    many = [line.split(" | ") for line in text.splitlines() if line.startswith("| `publish")]
    assert [float(row[1].replace(",", "")) > 0 for row in many] == [True, True, True]
    # A missing peer has a row that says how to install it.
    assert "pip install pusher" in text or re.search(r"^\| pusher \d", text, re.MULTILINE)


def test_the_load_counts_what_is_delivered() -> None:
    if shutil.which("cc") is None:
        with pytest.raises(MissingError, match="gcc"), loaded(STARTERS[TAMBUR], 1, 1):
            pass
        return
    with loaded(STARTERS[TAMBUR], 5, 30) as load:
        run = load.run("count", 10)
        assert (run.found["published"], run.found["deliveries"]) == (10, 50)
        assert load.run("burst", 2, 4).found["deliveries"] == 40


def test_the_plot_shows_the_figures_of_the_page() -> None:
    assert plot.PAGE.with_suffix(".svg").read_text("utf-8") == plot.svg(plot.PAGE.read_text("utf-8"))


def test_the_documentation_names_commands_of_the_benchmarks_that_exist() -> None:
    pages = [path.read_text("utf-8") for path in documentation.DOCS.rglob("*.md")]
    commands = re.findall(r"python -m benchmarks(?:\.(\w+)|\b ?([\w ]*))", "\n".join(pages))
    assert len(commands) >= len(PARTS)
    for module, parts in commands:
        assert module in ("", "plot")
        assert set(parts.split()) <= set(PARTS)
