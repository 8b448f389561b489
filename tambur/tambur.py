"""``from tambur.tambur import Tambur`` works as in the package of 2012."""

from .publisher.client import Tambur

__all__ = ["Tambur"]
