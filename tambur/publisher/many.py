"""Publishes many messages: streams side by side, the messages of each stream in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import InvalidNameError, TamburError
from ..protocol.names import Name, check_destination


def publish_many(
    publish: Callable[[Name, Any], bool],
    pairs: Iterable[tuple[Name, Any]],
    *,
    max_workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[bool | TamburError]:
    """See :meth:`tambur.Tambur.publish_many`.

    Parameters:
        publish: publishes one message; several threads call it.
        max_workers: the maximum number of threads.
    """
    streams: dict[str, list[tuple[int, Name, Any]]] = {}
    total = 0
    for index, (stream, message) in enumerate(pairs):
        streams.setdefault(_key(stream), []).append((index, stream, message))
        total += 1
    if not total:
        return []
    outcomes: list[bool | TamburError] = [False] * total
    finished: queue.SimpleQueue[tuple[int, bool | BaseException]] = queue.SimpleQueue()
    stopped = threading.Event()

    def work(key: str) -> None:
        for index, stream, message in streams[key]:
            if stopped.is_set():
                return
            try:
                finished.put((index, publish(stream, message)))
            except BaseException as error:  # noqa: BLE001 - the calling thread handles it
                finished.put((index, error))

    with ThreadPoolExecutor(min(max_workers, len(streams)), "tambur-publish") as executor:
        try:
            for key in streams:
                executor.submit(work, key)
            for done in range(1, total + 1):
                index, outcome = finished.get()
                if not isinstance(outcome, (bool, TamburError)):
                    raise outcome  # noqa: TRY301 - it ends everything, as an error in progress does
                outcomes[index] = outcome
                if progress is not None:
                    progress(done, total)
        except BaseException:
            stopped.set()  # messages under way are finished, no other is begun
            executor.shutdown(cancel_futures=True)
            raise
    return outcomes


def _key(stream: object) -> str:
    """One key for all forms of a stream's name, and one for the invalid names, which publish refuses."""
    try:
        return check_destination(stream)
    except InvalidNameError:
        return ""
