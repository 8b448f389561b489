"""The listening sockets of a server, and their needs: TLS, a port for several processes, open files."""

from __future__ import annotations

import dataclasses
import errno
import logging
import socket
import ssl

from ..errors import ConfigurationError
from .config import Config
from .logs import line

BACKLOG = 2048
"""How many connections may wait to be accepted."""

FILES_BESIDES = 64
"""The most open files of a process besides its connections."""

logger = logging.getLogger("tambur.server")


def listen(host: str, port: int, *, shares_port: bool = False, setting: str = "port") -> socket.socket:
    """Listen on an address.

    Parameters:
        host: a name, or an IP address with or without brackets.
        port: 0 for a free port.
        shares_port: whether other processes may listen on the same port.
        setting: the name of the setting that holds the port, for errors.

    Raises:
        ConfigurationError: if that is not possible. The text names the address and the reason.
    """
    family, address = _address(host, port)
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=shares_port)
    except (OSError, UnicodeError) as error:
        # Python appends the address to the system's words.
        reason = ((isinstance(error, OSError) and error.strerror) or str(error)).partition(" (while ")[0]
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            reason += "; stop the other program, or choose another port"
        raise ConfigurationError(f"cannot listen on {address[0]}, {setting} {port}: {reason}") from None
    # Accepted connections inherit the option. asyncio sets it only if the socket names its protocol. Without
    # it, a small message waits up to 40 ms until the client acknowledges the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def reserve_port(host: str, port: int) -> socket.socket:
    """Reserve a port on which nobody listens, for processes that share it.

    Returns:
        A socket that keeps the port until it is closed.

    Raises:
        ConfigurationError: if another process listens there, or the system cannot share ports.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError("workers must be 1: on this system, processes cannot share a port")
    # A socket that shares its port can be bound even if another process already listens there.
    with listen(host, port) as probe:
        port = probe.getsockname()[1]
    family, address = _address(host, port)
    reserved = socket.socket(family)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(address)
    return reserved


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)


def listener_url(listener: socket.socket, *, has_tls: bool) -> str:
    """The URL of a listener, ``http://HOST:PORT`` or ``https://HOST:PORT``."""
    scheme = "https" if has_tls else "http"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def load_tls(config: Config) -> ssl.SSLContext | None:
    """Load the certificate; ``None`` for a server without TLS.

    Raises:
        ConfigurationError: if the files cannot be used. The text names them and the reason.
    """
    if config.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password, OpenSSL would ask the terminal for one.
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")
    except OSError as error:  # ssl.SSLError is one
        files = f"tls_cert {config.tls_cert!r}"
        if config.tls_key is not None:
            files += f" and tls_key {config.tls_key!r}"
        raise ConfigurationError(f"cannot use {files}: {error.strerror or error}") from None
    return context


def allow_open_files(config: Config) -> Config:
    """Raise the process's limit of open files to what ``max_connections`` needs.

    Returns:
        The config, with a lower ``max_connections`` if the system does not allow so many files.
    """
    try:
        import resource  # noqa: PLC0415 - Windows has neither the module nor the limit
    except ImportError:
        return config
    limits = config.limits
    needed = limits.max_connections + FILES_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return config
    max_connections = max(1, allowed - FILES_BESIDES)
    logger.warning(
        line(
            "max_connections lowered, the system allows too few open files",
            max_connections=max_connections,
            of=limits.max_connections,
            open_files_allowed=allowed,
            open_files_needed=needed,
        )
    )
    return dataclasses.replace(config, limits=dataclasses.replace(limits, max_connections=max_connections))
