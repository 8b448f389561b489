"""The publications and receptions of a test: the ledger accounts for every message.

Messages are numbered by stream, from 1 on, and each stream has one publisher, which publishes a message after
the other. The rules, for each subscriber of a stream and as long as its connection lasted:

- A publish that returned ``True`` reached it exactly once, in the publisher's order. So there are no gaps:
  from the first publish that began after its subscription was confirmed up to the last one, or to the last
  that it received if its connection was lost.
- A publish that raised reached it at most once, and not at all if ``may_have_been_delivered`` is false.
- No message reached it twice, not even after it had reconnected.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tambur import PublishError


@dataclass
class Epoch:
    """The receptions of one connection: the messages of each stream, in their order.

    Attributes:
        begun: how many publishes to each stream had begun when its subscription was confirmed, or was known to
            be; a message up to there may have come too early for it.
        newest: the highest number of each stream, so that nobody searches for it after each message.
        is_open: whether the connection lasted to the end.
    """

    begun: dict[str, int]
    received: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    newest: Counter[str] = field(default_factory=Counter)
    is_open: bool = True


class Ledger:
    """Written by the threads that publish and receive."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.begun: Counter[str] = Counter()
        self.outcomes: dict[str, list[PublishError | None]] = defaultdict(list)
        self.epochs: dict[str, list[Epoch]] = defaultdict(list)

    # Events

    def begin(self, stream: str) -> int:
        """The number of the message that is published now."""
        with self.changed:
            self.begun[stream] += 1
            return self.begun[stream]

    def end(self, stream: str, error: PublishError | None) -> None:
        with self.changed:
            self.outcomes[stream].append(error)

    def connect(self, subscriber: str, streams: tuple[str, ...]) -> Epoch:
        """A subscriber is subscribed to streams."""
        with self.changed:
            for epoch in self.epochs[subscriber]:
                epoch.is_open = False
            epoch = Epoch({stream: self.begun[stream] for stream in streams})
            self.epochs[subscriber].append(epoch)
            self.changed.notify_all()
            return epoch

    def receive(self, epoch: Epoch, stream: str, number: int) -> None:
        with self.changed:
            epoch.received[stream].append(number)
            epoch.newest[stream] = max(epoch.newest[stream], number)
            self.changed.notify_all()

    def lose(self, epoch: Epoch) -> None:
        with self.changed:
            epoch.is_open = False
            self.changed.notify_all()

    def have_all(self, numbers: dict[str, int]) -> bool:
        """Whether all are connected and have received these numbers of their streams, or later ones."""
        return all(
            epochs[-1].is_open and all(epochs[-1].newest[s] >= numbers[s] for s in epochs[-1].begun)
            for epochs in self.epochs.values()
        )

    # Results

    def counts(self) -> dict[str, int | dict[str, int]]:
        outcomes = [outcome for stream in self.outcomes.values() for outcome in stream]
        epochs = [epoch for of_one in self.epochs.values() for epoch in of_one]
        return {
            "publishes": len(outcomes),
            "returned True": outcomes.count(None),
            "raised": dict(Counter(type(e).__name__ for e in outcomes if e is not None)),
            "raised, though delivered": len(self._raised_though_delivered()),
            "deliveries": sum(len(numbers) for epoch in epochs for numbers in epoch.received.values()),
            "duplicates": sum(count - 1 for seen in self._seen().values() for count in seen.values()),
            "subscribers": len(self.epochs),
            "connections lost": len(epochs) - len(self.epochs),
        }

    def _seen(self) -> dict[str, Counter[tuple[str, int]]]:
        """How often each subscriber received each message, over all its connections."""
        return {
            name: Counter(
                (stream, number)
                for epoch in epochs
                for stream, numbers in epoch.received.items()
                for number in numbers
            )
            for name, epochs in self.epochs.items()
        }

    def _raised_though_delivered(self) -> set[tuple[str, int]]:
        return {
            (stream, number)
            for seen in self._seen().values()
            for stream, number in seen
            if self.outcomes[stream][number - 1] is not None
        }

    def violations(self) -> list[str]:
        """The violations of the rules; there should be none."""
        found = []
        for stream, number in sorted(self._raised_though_delivered()):
            error = self.outcomes[stream][number - 1]
            assert error is not None
            if not error.may_have_been_delivered:
                found.append(f"{stream} {number} was delivered, which {error!r} denies")
        for name, seen in self._seen().items():
            found += [f"{name} received {what} {count} times" for what, count in seen.items() if count > 1]
        for name, epochs in self.epochs.items():
            for i, epoch in enumerate(epochs):
                for stream, begun in epoch.begun.items():
                    problems = self._compare(stream, begun, epoch.received[stream], epoch.is_open)
                    found += [f"{name}, connection {i}, {stream}: {problem}" for problem in problems]
        return found

    def _compare(self, stream: str, begun: int, received: list[int], is_open: bool) -> list[str]:
        outcomes = self.outcomes[stream]
        confirmed = [number for number in received if outcomes[number - 1] is None]
        found = []
        if confirmed != sorted(confirmed):
            wrong = [pair for pair in itertools.pairwise(confirmed) if pair[0] > pair[1]]
            found.append(f"the order is wrong, {wrong}")
        last = len(outcomes) if is_open else max(confirmed, default=0)
        expected = {n for n in range(begun + 1, last + 1) if outcomes[n - 1] is None}
        if missed := sorted(expected - set(confirmed)):
            found.append(f"{missed} of {last} are missing")
        return found
