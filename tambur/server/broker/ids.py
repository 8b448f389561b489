"""IDs of nodes, and of the subscribers that connect to them."""

from __future__ import annotations

import secrets
import uuid

_NODE_DIGITS = 8


def new_node() -> str:
    """Make the ID of a node: 32 random bits as hexadecimal digits."""
    return secrets.token_hex(_NODE_DIGITS // 2)


def new_subscriber_id(node: str) -> str:
    """Make a UUID of version 8 (RFC 9562) that begins with the node; its other 90 bits are random."""
    random = secrets.randbits(90)
    version, variant = 8, 0b10
    bits = int(node, 16) << 96 | (random >> 74) << 80 | (random >> 62 & 0xFFF) << 64 | random & (1 << 62) - 1
    return str(uuid.UUID(int=bits | version << 76 | variant << 62))


def node_of(subscriber_id: str) -> str:
    """The node that made a subscriber ID; for other strings, their first 8 characters."""
    return subscriber_id[:_NODE_DIGITS]
