"""Threads for tests, which the interpreter switches as often as it can."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

PATIENCE_SECONDS = 20.0
"""How long a test waits for what must come; reached only when it fails."""


@pytest.fixture
def switch_interval() -> Iterator[Callable[[], None]]:
    """Sets another tiny switch interval, from 1 us to 100 us."""
    before = sys.getswitchinterval()
    intervals = random.Random(7)

    def change() -> None:
        sys.setswitchinterval(10 ** intervals.uniform(-6, -4))

    change()
    yield change
    sys.setswitchinterval(before)


class BegunThreads:
    """The threads that were begun since this was made, and live.

    How many a process has says nothing in a test: those of an earlier one may end meanwhile.
    """

    def __init__(self) -> None:
        self._before = frozenset(threading.enumerate())

    def __call__(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in self._before]


@contextmanager
def repeated(call: Callable[[], None], seconds: float, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Call it again and again, so many seconds apart, on a thread of its own, which is waited for at the end."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(seconds):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(patience_seconds)


def in_threads(*calls: Callable[[], None]) -> None:
    """Run these at the same time, and raise what one of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        try:
            barrier.wait(PATIENCE_SECONDS)
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[call], daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
