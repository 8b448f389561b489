"""Reaching a server on this machine, whatever proxies the environment names for the rest of the world."""

from __future__ import annotations

import os

ADDRESS = "127.0.0.1"


def no_proxy() -> str:
    """The value for the environment variable ``no_proxy`` that adds this machine to what stands there."""
    # Where both are set, the lower-case one is looked at.
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return f"{before},{ADDRESS}" if before else ADDRESS
