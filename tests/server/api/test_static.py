"""The files that pages load from the server."""

from __future__ import annotations

from importlib import resources

import pytest
import requests

from tambur.server import Server
from tambur.server.api import static

from ...support import esm


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("tambur.js", "application/javascript"),
        ("tambur.mjs", "application/javascript"),
        ("tambur.d.ts", "text/plain; charset=utf-8"),
        ("tambur.d.mts", "text/plain; charset=utf-8"),
    ],
)
def test_the_files_of_the_package_are_served_to_any_page(server: Server, name: str, media_type: str) -> None:
    answer = requests.get(f"{server.url}/{name}", timeout=60)
    assert answer.status_code == 200
    assert answer.content == (resources.files("tambur.server") / "static" / name).read_bytes()
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}'])
def test_a_page_that_has_the_file_gets_no_second_one(server: Server, form: str) -> None:
    url = f"{server.url}/tambur.js"
    tag = requests.get(url, timeout=60).headers["ETag"]
    answer = requests.get(url, headers={"If-None-Match": form.format(tag)}, timeout=60)
    assert (answer.status_code, answer.content) == (304, b"")
    assert requests.get(url, headers={"If-None-Match": '"old"'}, timeout=60).status_code == 200


def test_the_module_and_its_types_are_made_from_the_classic_script() -> None:
    for path, text in esm.made().items():
        assert path.read_text("utf-8") == text, f"{path.name} is old: run python -m tests.support.esm"


def test_the_address_that_the_server_prints_says_what_it_is(server: Server) -> None:
    answer = requests.get(server.url, timeout=60)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
    assert answer.text == static.ABOUT
