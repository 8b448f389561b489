"""The chat with Django."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .chat import ChatContract
from .site import EXAMPLES, Site, running

COMMANDS = [
    ".venv/bin/python manage.py migrate",
    ".venv/bin/python manage.py loaddata demo_users.json",
    ".venv/bin/python manage.py runserver --insecure",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(
        "django_chat", tmp_path_factory.mktemp("django"), COMMANDS, "127.0.0.1:0", "--noreload"
    ) as site:
        yield site


class TestDjangoChat(ChatContract):
    pass


@pytest.mark.parametrize("name", ["chat.css", "chat.js"])
def test_the_page_is_that_of_the_chat_with_flask(name: str) -> None:
    static = [EXAMPLES / chat / "static" / name for chat in ("django_chat", "flask_chat")]
    assert static[0].read_bytes() == static[1].read_bytes()
