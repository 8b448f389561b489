"""Which backend a URL names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import Backend
from .redis.urls import parse_url

if TYPE_CHECKING:
    from ..config import App, Limits


def from_url(
    url: str,
    *,
    max_claims: int,
    node_timeout_s: float,
    apps: Sequence[App] = (),
    limits: Limits | None = None,
) -> Backend:
    """Make the backend that a URL names.

    Parameters:
        url: ``memory://`` for one process, or the URL of a Redis for several nodes.
        max_claims: claimed nonces of each app that are kept; a publish past that is refused.
        node_timeout_s: seconds without a renewed lease after which the users of another node leave.
        apps: apps with their own rules for history.
        limits: the limits for all others; ``None`` for the defaults.

    Raises:
        ConfigurationError: if the URL is malformed.
        ImportError: if a package that the backend needs is not installed.
    """
    redis_url = parse_url(url)
    # Only the selected backend is loaded: each has its own dependencies.
    if redis_url is None:
        from .memory import MemoryBackend  # noqa: PLC0415

        return MemoryBackend(max_claims=max_claims, apps=apps, limits=limits)
    from ..config import Limits  # noqa: PLC0415 - it imports this package

    try:
        from .redis.backend import RedisBackend  # noqa: PLC0415
    except ImportError as error:
        package = str(error.name).partition(".")[0]
        raise ImportError(
            f"the broker redis:// needs the package {package}, which is not installed; "
            "pip install 'tambur[redis]>=1'",
            name=package,
        ) from None

    return RedisBackend(
        redis_url,
        max_claims=max_claims,
        node_timeout_s=node_timeout_s,
        apps=apps,
        limits=limits or Limits(),
    )
