"""A console that shows soon what is new."""

from __future__ import annotations

import pytest

from tambur.server.console import live, reports


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REFRESH_S", 0.02)
    monkeypatch.setattr(reports, "ASK_S", 0.02)
