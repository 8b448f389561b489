"""A publisher that asks the server how many nodes listen, for ``tambur publish --verbose``."""

from __future__ import annotations

from typing import Any

import requests

from .client import Tambur


class DebuggingTambur(Tambur):
    """Publishes with ``?debug=true`` (section 2 of the protocol).

    Attributes:
        nodes: how many nodes listen to the stream of the last publish; ``None`` if the server did not say.
    """

    nodes: int | None = None

    def _build_request(self, *arguments: Any, **options: Any) -> requests.PreparedRequest:
        request = super()._build_request(*arguments, **options)
        request.url = f"{request.url}?debug=true"  # the signature does not cover the query
        request.hooks = {"response": [self._take_nodes]}
        return request

    def _take_nodes(self, response: requests.Response, **_: Any) -> None:
        written = response.headers.get("Tambur-Nodes", "")
        self.nodes = int(written) if written.isascii() and written.isdigit() and len(written) < 10 else None
