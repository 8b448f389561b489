"""The error of a setting that breaks a rule."""

from __future__ import annotations

from ..errors import ConfigurationError


class SettingError(ConfigurationError):
    """One setting breaks a rule; ``key`` is its name in the table."""

    def __init__(self, key: str, rule: str) -> None:
        super().__init__(f"{key} {rule}")
        self.key = key


def require(condition: object, key: str, rule: str) -> None:
    if not condition:
        raise SettingError(key, rule)
