"""WebSocket close codes: those of RFC 6455 section 7.4.1 and its registry, and above 4000 the own ones."""

from __future__ import annotations

GOING_AWAY = 1001
"""The server shuts down."""

UNSUPPORTED_DATA = 1003
"""The client sent a binary frame."""

INVALID_DATA = 1007
"""The client sent a text frame that is not UTF-8."""

POLICY_VIOLATION = 1008
"""The client sent too many malformed commands in a row."""

INTERNAL_ERROR = 1011
"""The server failed, and logged why."""

SERVICE_RESTART = 1012
"""Messages for the subscriber were lost. Clients reconnect."""

TRY_AGAIN_LATER = 1013
"""The server holds too much for its clients, and this one has the most."""

DISCONNECTED = 4003
"""The application disconnected the subscriber. Clients do not reconnect."""

SLOW_SUBSCRIBER = 4008
"""The subscriber reads too slowly."""

SESSION_MOVED = 4009
"""The session continues on another connection."""
