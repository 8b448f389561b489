"""Nodes that link again soon, and look for dead nodes often."""

from __future__ import annotations

import pytest

from tambur.server.broker.redis import presence, shard


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "FIRST_RECONNECT_WAIT_S", 0.01)
    monkeypatch.setattr(presence, "SWEEP_INTERVAL_S", 0.05)
