"""Worker processes and their supervisor."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from typing import Any

from ..errors import ConfigurationError
from .logs import line

REPLACEMENT_PAUSE_S = 1.0
"""The least time between the starts of a worker and its replacement, in seconds, to avoid a busy loop."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("tambur.server")

Work = Callable[[int, Callable[[], None]], None]


def run_workers(count: int, work: Work, *, on_ready: Callable[[], None], end_timeout_s: float) -> None:
    """Run several processes until a SIGTERM or SIGINT, then end them all.

    Parameters:
        count: how many processes.
        work: each worker's function, which runs until the worker receives a SIGTERM. It is called with
            the worker's number, from 0 on, and a function to call once it is ready. A worker that dies is
            replaced by one with the same number. If this process dies, all workers end.
        on_ready: called once all workers are ready.
        end_timeout_s: how long the workers may take to end, in seconds, before they are killed.
    """
    ready_end, ready_start = os.pipe()
    with _caught_signals() as signals_end:
        working = {_start(work, number, ready_start): (number, time.monotonic()) for number in range(count)}
        missing: dict[int, float] = {}  # the numbers of workers to replace, and when
        not_ready_count = count
        while True:
            pause_s = max(0.0, min(missing.values()) - time.monotonic()) if missing else None
            sentinels = {process.sentinel: process for process in working}
            heard = wait([signals_end, ready_end, *sentinels], pause_s)
            if signals_end in heard:
                break
            if ready_end in heard:
                os.read(ready_end, 1)
                not_ready_count -= 1
                if not_ready_count == 0:
                    on_ready()
            for sentinel in sentinels.keys() & heard:
                process = sentinels[sentinel]
                process.join()
                number, started_at = working.pop(process)
                ended = {"pid": process.pid, "exit_status": process.exitcode}
                logger.error(line("worker ended, replacing it", worker=number, **ended))
                missing[number] = started_at + REPLACEMENT_PAUSE_S
            now = time.monotonic()
            for number in [number for number, due in missing.items() if due <= now]:
                del missing[number]
                working[_start(work, number, ready_start)] = number, now
        _end(list(working), end_timeout_s)
    os.close(ready_end)
    os.close(ready_start)


def _start(work: Work, number: int, ready_start: int) -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(work, number, ready_start), daemon=True
    )
    # Signals stay pending until the child has replaced the handlers of this process.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return process


def _child(work: Work, number: int, ready_start: int) -> None:
    signal.set_wakeup_fd(-1)
    for caught in _SIGNALS:
        signal.signal(caught, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def ready() -> None:
        os.write(ready_start, b".")

    try:
        work(number, ready)
    except ConfigurationError as error:  # such as a port that another process took meanwhile
        logger.error(line("worker cannot start", worker=number, reason=error))  # noqa: TRY400
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _end(processes: list[ForkProcess], timeout_s: float) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            logger.error(line("worker killed, it did not end", pid=process.pid, timeout_s=timeout_s))
            process.kill()
            process.join()


@contextlib.contextmanager
def _caught_signals() -> Iterator[int]:
    """Yield a file descriptor that becomes readable on SIGINT or SIGTERM."""
    end, start = os.pipe()
    os.set_blocking(start, False)
    wakeup_fd = signal.set_wakeup_fd(start)
    before: dict[signal.Signals, Any] = {n: signal.signal(n, lambda *_: None) for n in _SIGNALS}
    try:
        yield end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_fd)
        os.close(end)
        os.close(start)
