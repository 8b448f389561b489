"""The tests of whole systems: browsers, nginx, Redis outages, faults, abuse and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from ..support.browser import chromium

HERE = Path(__file__).parent
KINDS = (
    ("tambur_js",),
    ("examples", "test_console", "test_demo_page", "test_docs_pages", "test_howto", "test_nginx"),
    ("test_faults", "test_batches", "test_webhooks", "test_cluster", "test_redis"),
)
"""Tests that share browsers or servers, which take long to start; the rest is one more kind."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test under this directory; pytest calls this for no other."""
    item.add_marker(pytest.mark.system)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each worker of xdist begin with another kind of tests, so that few of them start the same browsers.

    With ``--dist worksteal`` each gets as many tests as the others, in their order. One that has no more takes the last
    ones of another.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    by_kind: list[list[pytest.Item]] = [[] for _ in range(workers)]
    others = []
    for item in items:
        if HERE not in item.path.parents:
            others.append(item)
            continue
        name = str(item.path.relative_to(HERE))
        kinds = [number for number, names in enumerate(KINDS) if name.startswith(names)]
        by_kind[(kinds or [len(KINDS)])[0] % workers].append(item)
    share = len(items) // workers
    items.clear()
    for chosen in by_kind:
        count = max(0, share - len(chosen))
        items += [*chosen, *others[:count]]
        del others[:count]
    items += others


@pytest.fixture(scope="session")
def driver() -> Iterator[Chrome]:
    """A browser, shared by the whole run. Each test opens its own page."""
    with chromium() as made:
        yield made


@pytest.fixture(scope="session")
def other_driver() -> Iterator[Chrome]:
    """The browser of a second user, shared by the whole run."""
    with chromium() as made:
        yield made
