"""The module of the 2012 package: ``from tambur.tambur import Tambur`` still works."""

from .publisher.client import Tambur

__all__ = ["Tambur", "api_version"]

api_version = "1.0"
"""The ``api_version`` parameter of a publish (section 2 of the protocol)."""
