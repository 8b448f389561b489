"""The benchmarks run. They need a checkout, so a test run away from one leaves them out."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys

import pytest

from benchmarks import console
from benchmarks.__main__ import PARTS
from benchmarks.load import loaded
from benchmarks.peers import ROOT, MissingError
from benchmarks.servers import STARTERS, TAMBUR

from ..support import documentation


def run_quickly(*parts: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *parts, "--quick"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("# Performance\n")
    if shutil.which("cc") is None:
        assert done.stdout.count("Not measured: install gcc") == len(parts)
        pytest.skip("the load is a C program")
    return done.stdout


def figures_of(text: str, contender: str) -> list[list[float]]:
    """The figures of a contender, one list for each table. A ratio to something that is missing is left out."""
    rows = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {contender} |")
    ]
    return [[float(cell.replace(",", "")) for cell in row[1:] if cell.strip()] for row in rows]


def test_publishing_is_measured() -> None:
    text = run_quickly("publish", "batch")
    assert [row[0] > 0 for row in figures_of(text, "tambur")] == [True, True]
    assert [row[0] > 0 for row in figures_of(text, "`publish_many`")] == [True]
    # A missing peer has a row that says how to install it.
    assert "pip install pusher" in text or re.search(r"^\| pusher \d", text, re.MULTILINE)


def test_sessions_are_measured_beside_plain_connections() -> None:
    text = run_quickly("sessions")
    # Fan-out and memory, then connecting, with and without Redis.
    for kind, count in {"plain": 4, "extended": 4, "extended, resumed": 2}.items():
        assert [row[0] > 0 for row in figures_of(text, kind)] == [True] * count


def test_the_cost_of_a_connection_is_measured() -> None:
    text = run_quickly("connections")
    for kind in ("a stream of its own", "extended, present among 10 users"):
        [(node_kib, _, node_us, _)] = figures_of(text, kind)
        assert node_kib > 0
        assert node_us > 0


def test_subscribers_of_a_killed_node_are_counted_on_the_other_one() -> None:
    [(resumed, wrong, *_, reads)] = figures_of(run_quickly("failover"), "200")
    assert (resumed, wrong, reads) == (200, 0, 1)


def test_the_memory_of_a_kept_and_of_an_expired_message_is_measured() -> None:
    text = run_quickly("history")
    [[before], [kept], [expired]] = [
        figures
        for name in ("before", "one message kept", "it has expired")
        for figures in figures_of(text, name)
    ]
    assert before < expired < kept


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
    plot = runpy.run_path(str(ROOT / "docs" / "plot.py"))
    assert plot["PAGE"].with_suffix(".svg").read_text("utf-8") == plot["svg"](plot["PAGE"].read_text("utf-8"))


@pytest.mark.parametrize("mode", console.MODES)
def test_each_mode_of_the_console_publishes(mode: str) -> None:
    """Each publish is checked. Counting the instructions would take most of the time of all benchmarks' tests."""
    subprocess.run([sys.executable, "-m", "benchmarks.console", mode, "2", "20"], check=True, cwd=ROOT)


def test_the_documentation_names_commands_of_the_benchmarks_that_exist() -> None:
    pages = [path.read_text("utf-8") for path in documentation.DOCS.rglob("*.md")]
    commands = re.findall(r"python -m benchmarks\b ?([\w ]*)", "\n".join(pages))
    assert {part for parts in commands for part in parts.split()} == set(PARTS)
