"""Publishers that wait for a short time only before they try again."""

from __future__ import annotations

import pytest

from tambur.publisher import retries


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_WAIT_S", 0.001)
