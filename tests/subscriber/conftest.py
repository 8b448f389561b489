"""Subscribers that reconnect without waiting for long."""

from __future__ import annotations

import pytest

from tambur.subscriber import session


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MIN_RECONNECT_WAIT_S", 0.02)
