"""A real server for every test that needs one."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tambur import Tambur
from tambur.cli.demo.page import make_routes
from tambur.server import Config, Server, in_background

from .support.app import APP, publisher, tambur_url
from .support.demo import CREDENTIALS
from .support.redis_server import RedisServer

# How long an example takes says how busy the machine is. CI runs the tests several times, each with other examples.
# The variable asks for more of them.
EXAMPLES = int(os.environ.get("TAMBUR_FUZZ_EXAMPLES", "40"))
settings.register_profile(
    "tests", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

# The processes that tests start need not compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell that starts the tests in the background has them ignore it, and what they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import the tests of whole systems if the run leaves them out."""
    is_left_out = config.option.markexpr == "not system" and collection_path.name == "system"
    return True if is_left_out else None


def pytest_collection_finish() -> None:
    """Spare the garbage collector the modules and tests, which live to the end."""
    gc.freeze()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with one app and the defaults, shared by the whole run. Each test uses its own streams."""
    with in_background(Config(apps=(APP,), port=0)) as running:
        yield running


@pytest.fixture(scope="session")
def demo() -> Iterator[Server]:
    """A server with the page of the demo."""
    config = Config.from_credentials(CREDENTIALS, port=0, console_port=0)
    with in_background(config, make_routes(CREDENTIALS, lambda: running.console_url)) as running:
        yield running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that keeps running."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.end()


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """A stream that no other test uses."""
    return hashlib.sha1(request.node.nodeid.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def url(server: Server) -> str:
    """The ``TAMBUR_URL`` of the shared server."""
    return tambur_url(server)


@pytest.fixture
def tambur(server: Server) -> Iterator[Tambur]:
    """A publisher for the server of the module, or else for the shared one."""
    with publisher(server) as made:
        yield made
