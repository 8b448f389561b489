"""The app of the demo in tests."""

from __future__ import annotations

from tambur.credentials import Credentials

CREDENTIALS = Credentials("30af96de47e3c58329045ff136a4a3ea", "demo", "hunter2", "http://unused")
