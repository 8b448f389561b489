"""Read a configuration from a TOML file, and name the line of a mistake in it."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .config import App, Config, KeptStreams, Limits
from .settings import SettingError
from .webhooks.settings import Webhook

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read(path: Path) -> Config:
    """Read a file of the form that docs/reference/configuration.md describes.

    Raises:
        ConfigurationError: naming the file, the line and the rule.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return _Reader(path, text).config(tables)


_TABLES = {
    "[server]": Config,
    "[limits]": Limits,
    "[[apps]]": App,
    "[[apps.history]]": KeptStreams,
    "[[apps.webhooks]]": Webhook,
}


class _Reader:
    """Turns parsed tables into dataclasses, and finds the line of a mistake in the text."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def config(self, tables: dict[str, Any]) -> Config:
        allowed = {"server", "limits", "apps"}
        for name, value in tables.items():
            if name in allowed:
                continue
            known = f"the tables are {_list(allowed)}"
            if isinstance(value, dict | list):
                hint = _meant(name, allowed)
                rule = f"unknown table {name!r}; {known}" + (f"; {hint}" if hint else "")
            else:
                rule = f"{name!r} stands outside of all tables; {_elsewhere(name) or known}"
            raise self._mistake((name,), rule)
        apps = tables.get("apps", [])
        if not isinstance(apps, list) or not all(isinstance(app, dict) for app in apps):
            raise self._mistake(("apps",), "apps must be an array of tables, each headed [[apps]]")
        settings = {
            "apps": tuple(self._app(app, ("apps", i)) for i, app in enumerate(apps)),
            "limits": self._build(Limits, tables.get("limits", {}), ("limits",)),
        }
        config: Config = self._build(Config, tables.get("server", {}), ("server",), settings)
        return config

    def _app(self, table: dict[str, Any], path: tuple[str | int, ...]) -> App:
        others = {"history": self._tables(table, path, "history", KeptStreams)}
        others["webhooks"] = self._tables(table, path, "webhooks", Webhook)
        app: App = self._build(App, table, path, others)
        return app

    def _tables(
        self, app: dict[str, Any], path: tuple[str | int, ...], name: str, cls: type[Any]
    ) -> tuple[Any, ...]:
        """The ``[[apps.NAME]]`` of an app."""
        tables = app.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            rule = f"{name} must be an array of tables, each headed [[apps.{name}]]"
            raise self._mistake((*path, name), rule)
        return tuple(self._build(cls, table, (*path, name, i)) for i, table in enumerate(tables))

    def _build(
        self,
        cls: type[Any],
        table: object,
        path: tuple[str | int, ...],
        others: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> Any:
        if not isinstance(table, dict):
            raise self._mistake(path, f"{path[0]} must be a table, headed [{path[0]}]")
        hints = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in others}
        values = dict(others)
        for key, value in table.items():
            if key in others and path != ("server",):  # has been read
                continue
            if key not in fields:
                hint = "it is a table of its own" if key in others else _meant(key, fields) or _elsewhere(key)
                rule = f"unknown setting {key!r}; known here are {_list(fields)}"
                raise self._mistake((*path, key), f"{rule}; {hint}" if hint else rule)
            try:
                values[key] = _convert(fields[key], value, hints[key])
            except SettingError as error:
                raise self._mistake((*path, key), str(error)) from None
        for name, field in fields.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise self._mistake(path, f"{name} is missing")
        try:
            return cls(**values)
        except SettingError as error:
            is_table = path == ("server",) and error.key in others  # which stands beside [server]
            inner = (error.key,) if is_table else (*path, error.key)
            raise self._mistake(inner, str(error)) from None

    def _mistake(self, path: tuple[str | int, ...], rule: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}, line {self._line(path)}: {rule}")

    def _line(self, path: tuple[str | int, ...]) -> int:
        """The first line of the statement that sets the value at ``path``.

        For a missing value, the line of the table that should contain it, or else the first line.
        """
        while path and not self._holds(len(self._lines), path):
            path = path[:-1]
        low, high = 1, max(1, len(self._lines))
        while path and low < high:
            middle = (low + high) // 2
            if self._holds(middle, path):
                high = middle
            else:
                low = middle + 1
        return low

    def _holds(self, count: int, path: tuple[str | int, ...]) -> bool:
        """Whether the first ``count`` lines, with the rest of a value that spans lines, set ``path``."""
        for end in range(count, len(self._lines) + 1):
            try:
                value: Any = tomllib.loads("\n".join(self._lines[:end]) + "\n")
            except tomllib.TOMLDecodeError:
                continue
            try:
                for step in path:
                    value = value[step]
            except LookupError:
                return False
            return True
        return False


def _list(names: typing.Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _meant(name: str, known: typing.Iterable[str]) -> str:
    """A question after the known name that resembles a misspelled one; empty if none does."""
    return "".join(
        f"did you mean {near!r}?" for near in difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    )


def _elsewhere(name: str) -> str:
    """Says which table has the setting; empty if none has."""
    for heading, cls in _TABLES.items():
        if name in {field.name for field in dataclasses.fields(cls)}:
            return f"it belongs in {heading}"
    return ""


def _convert(field: dataclasses.Field[Any], value: object, hint: Any) -> Any:
    """Check a TOML value against the annotation of its field."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    # TOML has no null: a setting that may be None is None by being absent.
    (wanted,) = (option for option in options if option is not type(None))
    if wanted is float and type(value) in (int, float):
        return float(typing.cast(float, value))
    if wanted in (int, str, bool) and type(value) is wanted:
        return value
    if typing.get_origin(wanted) is tuple and isinstance(value, list) and all(type(v) is str for v in value):
        return tuple(value)
    names = {float: "a number", int: "an integer", str: "a string", bool: "true or false"}
    # A field without a repr may hold a secret or a password.
    found = f", not {value!r}" if field.repr else ""
    raise SettingError(field.name, f"must be {names.get(wanted, 'an array of strings')}{found}")
