"""The chat with Django."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize(
    "name", ["static/chat.css", "static/chat.js", "templates/base.html", "templates/room.html"]
)
def test_the_page_is_that_of_the_chat_with_flask(name: str) -> None:
    """Its tests are in test_flask_chat.py. The templates differ in their tags and in the field against other sites."""
    field = re.compile(r'<input type="hidden" name="csrf_token" .*>')
    tags = re.compile(r"\{%.*?%\}|\{\{.*?\}\}")
    django, flask = (
        [line for line in tags.sub("", field.sub("", text)).splitlines() if line.strip()]
        for text in ((EXAMPLES / chat / name).read_text("utf-8") for chat in ("django_chat", "flask_chat"))
    )
    assert django == flask
