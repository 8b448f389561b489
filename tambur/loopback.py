"""This machine's own addresses: which hosts are loopback, and how requests to them avoid a proxy."""

from __future__ import annotations

import ipaddress
import os

ADDRESS = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``, a name or an address without a port."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def no_proxy() -> str:
    """Return the value of ``no_proxy`` that adds this machine to the hosts already listed there."""
    # Where both variables are set, requests reads the lower-case one.
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return f"{before},{ADDRESS}" if before else ADDRESS
