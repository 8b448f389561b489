"""The allowed imports: the wall between the publisher and the server, and the pure core."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import tambur

PACKAGE = Path(tambur.__file__).parent

# The imports that each part may have from the package, at the top of its modules; a part includes what is below it.
MAY_IMPORT = {
    "errors": (),
    "protocol": ("errors", "protocol"),
    "credentials": ("errors", "protocol"),
    "loopback": (),
    "printable": (),
    "publisher": ("", "credentials", "errors", "protocol", "publisher"),
    "tambur": ("publisher",),
    "": ("errors", "publisher", "tambur"),
    "subscriber": ("credentials", "errors", "printable", "protocol", "subscriber"),
    "server": ("", "credentials", "errors", "loopback", "protocol", "server", "webhooks"),
    # The command line imports modules that need an extra inside its commands.
    "cli": ("", "cli", "credentials", "errors", "printable", "protocol", "publisher"),
    "cli.demo": (
        "cli.shell",
        "cli.demo",
        "credentials",
        "errors",
        "loopback",
        "protocol",
        "publisher",
        "server",
        "subscriber",
    ),
    "__main__": ("cli",),
    "webhooks": ("errors", "protocol"),
    "recording": ("credentials", "protocol", "publisher"),
    "testing": ("loopback", "protocol", "publisher", "recording", "webhooks"),
}
PURE = (
    "credentials", "protocol", "server.history", "server.subscriptions", "server.broker.redis.mirror", "server.broker.redis.scripts",
    "server.broker.redis.urls", "server.revocations", "server.rounds", "server.stream",
)  # fmt: skip
IMPURE = {
    "asyncio", "datetime", "random", "redis", "requests", "secrets", "socket", "starlette", "threading",
    "time", "uvicorn", "websockets",
}  # fmt: skip
KNOWS_REQUESTS = ("errors", "publisher", "cli.doctor", "recording")
TRANSPORTS = ("server.transports.longpoll", "server.transports.websocket")


def is_in(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or (part and name.startswith(f"{part}.")) for part in parts)


@functools.cache
def sources() -> dict[str, str]:
    """The source of each module by its name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path.read_text("utf-8")
    return found


@functools.cache
def top_level(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The imports that run when the module is imported, without those for type checkers."""
    waiting: list[ast.AST] = list(ast.parse(source).body)
    found = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return found


def imports(known: Mapping[str, str]) -> dict[str, tuple[set[str], set[str]]]:
    """For each module, given its source, its imports of the package and of others."""
    graph = {}
    for name, source in known.items():
        inner, outer = set(), set()
        for node in top_level(source):
            if isinstance(node, ast.Import):
                outer |= {alias.name.partition(".")[0] for alias in node.names}
            elif node.level == 0:
                outer.add((node.module or "").partition(".")[0])
            else:
                is_package = (PACKAGE / name.replace(".", "/") / "__init__.py").exists()
                parts = name.split(".") if name else []
                base = parts[: len(parts) - node.level + is_package]
                target = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    inner.add(whole if (whole := f"{target}.{alias.name}".lstrip(".")) in known else target)
        graph[name] = inner, outer
    return graph


def violations(known: Mapping[str, str]) -> list[str]:
    found = []
    for name, (inner, outer) in imports(known).items():
        part = max((part for part in MAY_IMPORT if is_in(name, (part,))), key=len)
        for target in sorted(inner):
            if not is_in(target, MAY_IMPORT[part]):
                found.append(f"{name} imports {target}")
            if name in TRANSPORTS and target in TRANSPORTS:
                found.append(f"the transport {name} imports {target}")
            if name != "server" and target == "server.app":
                found.append(f"{name} imports {target}")
            if is_in(name, ("server.broker",)) and target in ("server.subscriptions", "server.hub"):
                found.append(f"{name} knows subscribers: it imports {target}")
            if name == "server.hub" and is_in(target, ("server.transports",)):
                found.append(f"{name} imports {target}")
        found += [f"{name} is pure, and imports {module}" for module in outer & IMPURE if is_in(name, PURE)]
        if "requests" in outer and not is_in(name, KNOWS_REQUESTS):
            found.append(f"{name} imports requests")
        if "redis" in outer and name != "server.broker.redis.shard":
            found.append(f"{name} imports redis")
    return found


def test_the_rules_hold() -> None:
    assert violations(sources()) == []


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("publisher.client", "from ..server import Config", "publisher.client imports server"),
        ("publisher.client", "from .. import server", "publisher.client imports server"),
        ("protocol.tokens", "import time", "protocol.tokens is pure, and imports time"),
        ("cli.progress", "from requests.auth import AuthBase", "cli.progress imports requests"),
        ("server.subscriptions", "import asyncio", "server.subscriptions is pure, and imports asyncio"),
        ("server.hub", "from ..publisher.client import Tambur", "server.hub imports publisher.client"),
        (
            "server.hub",
            "from .transports.websocket import WebSocket",
            "server.hub imports server.transports.websocket",
        ),
        (
            "server.transports.longpoll",
            "from . import websocket",
            "the transport server.transports.longpoll imports server.transports.websocket",
        ),
        (
            "server.broker.memory",
            "from ..subscriptions import Subscriptions",
            "server.broker.memory knows subscribers: it imports server.subscriptions",
        ),
        ("server.api.publish", "import redis", "server.api.publish imports redis"),
        (
            "server.connection",
            "try:\n    from . import app\nfinally:\n    pass",
            "server.connection imports server.app",
        ),
    ],
)
def test_a_violation_is_found(module: str, line: str, said: str) -> None:
    changed = f"{sources()[module]}\n{line}\n"
    assert violations({**sources(), module: changed}) == [said]


def test_with_nothing_but_requests_the_publisher_works_and_the_subscriber_says_what_to_install() -> None:
    code = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "httptools", "redis", "starlette", "tomli", "uvicorn", "uvloop", "websockets", "anyio"
        }:
            raise ImportError(name, name=name)

sys.meta_path.insert(0, Nothing())
import tambur
tambur.Tambur("k", "a", "s", "h").generate_auth_token("s", "id")
assert tambur.tambur.Tambur is tambur.Tambur  # as in the package of 2012
assert tambur.tambur.api_version == "1.0"
try:
    import tambur.subscriber
except ImportError as error:
    assert "subscribing needs websockets" in str(error)
    assert "pip install 'tambur[subscriber]>=1'" in str(error)
else:
    raise AssertionError
import tambur.cli
tambur.cli.main(["new-app", "shop"])
assert not any(name.startswith("tambur.server") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
