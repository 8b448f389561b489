"""A publisher without a network, for each test."""

from __future__ import annotations

import pytest

from tests.support.publishing import Publisher


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()
