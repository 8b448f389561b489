"""The chat with Flask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .chat import ChatContract
from .site import FLASK_COMMANDS, Site, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running("flask_chat", tmp_path_factory.mktemp("flask"), FLASK_COMMANDS, "--port", "0") as site:
        yield site


class TestFlaskChat(ChatContract):
    pass
