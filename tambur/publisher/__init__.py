"""The publisher, which needs only requests."""
