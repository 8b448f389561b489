"""Webhooks: signed requests that tell an app of its events (protocol, section 10)."""
