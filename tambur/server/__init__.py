"""The service itself, to run on one's own machine: ``pip install tambur[server]``."""

from __future__ import annotations

from collections.abc import Callable

try:
    import httptools as _httptools  # noqa: F401
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
    import websockets as _websockets  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"the server needs {error.name}, which is not installed; pip install 'tambur[server]>=1'",
        name=error.name,
    ) from None

from .app import Server, in_background, run
from .config import App, Config, Limits

__all__ = ["App", "Config", "Limits", "Server", "in_background", "serve"]


def serve(config: Config, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, in as many processes as the config says.

    Parameters:
        on_ready: called with ``http://HOST:PORT`` once requests are answered; ``None`` prints
            ``Tambur is listening on http://HOST:PORT``.

    Raises:
        ConfigurationError: if the server cannot listen on the config's host and port.
    """

    def announce(url: str) -> None:
        print(f"Tambur is listening on {url}", flush=True)  # noqa: T201

    run(config, on_ready or announce)
