"""The API without a network, for each test."""

from __future__ import annotations

import pytest

from tests.support.api import Api


@pytest.fixture
def api() -> Api:
    return Api()
