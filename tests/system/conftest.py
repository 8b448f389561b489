"""Marks the tests of whole systems: browsers, nginx, Redis outages, faults, abuse and the command line."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test under this directory; pytest calls this for no other."""
    item.add_marker(pytest.mark.system)
