"""The look-up of apps: by the path of a subscriber, or by the app ID of a signed request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..protocol.paths import split_subscribe_path
from .broker import AppKey
from .config import App


class Apps:
    """The apps of a server.

    Parameters:
        apps: all apps.
    """

    def __init__(self, apps: Iterable[App]) -> None:
        self._by_key: dict[AppKey, App] = {}
        self._by_id: dict[str, dict[str, App]] = {}
        for app in apps:
            self._by_key[app.key] = app
            self._by_id.setdefault(app.app_id, {})[app.api_key] = app

    def at(self, raw_path: bytes) -> App | None:
        """The app of ``/API_KEY/APP_ID``, as it stands in a request line; ``None`` if there is none."""
        names = split_subscribe_path(raw_path)
        return None if names is None else self._by_key.get(AppKey(*names))

    def with_id(self, app_id: str) -> Mapping[str, App] | None:
        """The apps with an ID, by API key; ``None`` if there is none."""
        return self._by_id.get(app_id)
