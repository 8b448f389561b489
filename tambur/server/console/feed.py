"""The newest items of a kind, for any number of viewers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Keeps the newest items, and numbers all of them from 0.

    Parameters:
        size: how many items it keeps.

    Attributes:
        end: the number of the next item.
    """

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque(maxlen=size)
        self.end = 0

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def add(self, item: T) -> None:
        """Add an item. It replaces the oldest one if there are ``size`` already."""
        self._items.append(item)
        self.end += 1

    def since(self, number: int) -> list[T]:
        """The kept items from a number on, oldest first."""
        first = self.end - len(self._items)
        return list(islice(self._items, max(0, number - first), None))
