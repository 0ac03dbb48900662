"""A worker process of the pipeline's that dies in the middle of something: Arroyo's handler of SIGCHLD raises."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import pytest
from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated


def worker_dies(*_: object, **__: object) -> Any:
    """While this runs, on the main thread."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise ChildProcessTerminated(number)

    before = signal.signal(signal.SIGCHLD, handle)
    try:
        signal.raise_signal(signal.SIGCHLD)
        pytest.fail("the handler wasn't called")
    finally:
        signal.signal(signal.SIGCHLD, before)


def worker_dies_as_threads_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after each has begun to run, before whoever starts it goes on."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        worker_dies()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
