"""The benchmarks run: they take a checkout, and are left out where the tests run away from one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.clients import LongPoll, WebSocket
from benchmarks.load import loaded
from benchmarks.peers import ROOT, MissingError
from benchmarks.servers import STARTERS, TAMBUR
from benchmarks.sizing import Client, cluster


def test_a_part_is_measured_and_written_to_the_page(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "token", "--quick", "--page", page],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    text = page.read_text("utf-8")
    assert text.startswith("# Performance\n")
    assert text.endswith(done.stdout.rstrip("\n") + "\n")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| tambur: ")]
    assert float(rows[0][2].rstrip(" |")) > 0
    # What is not installed here is a row that says how to install it.
    assert "pip install itsdangerous" in text or "| itsdangerous " in text


def test_the_load_counts_what_is_delivered() -> None:
    if shutil.which("cc") is None:
        with pytest.raises(MissingError, match="gcc"), loaded(STARTERS[TAMBUR], 1, 1):
            pass
        return
    with loaded(STARTERS[TAMBUR], 5, 30) as load:
        run = load.run("count", 10)
        assert (run.found["published"], run.found["deliveries"]) == (10, 50)
        assert load.run("burst", 2, 4).found["deliveries"] == 40


def test_what_is_asked_of_redis_is_counted() -> None:
    with cluster(1) as over:
        (node,) = over.nodes
        before = over.used()
        clients: list[Client] = [WebSocket(node.port), LongPoll(node.port)]
        for client in clients:
            client.command("subscribe", "news")
            client.wait()
        alone = over.used() - before
        for client in clients:
            client.close()
        # One subscription for both, of one node, and for each how far publications have come.
        assert (alone.sent, alone.executed) == (1, 2)
        assert 0 < alone.in_bytes < 1000
