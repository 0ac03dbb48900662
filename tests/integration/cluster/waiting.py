"""Waiting for something that can only be asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.02


def wait_until(is_true: Callable[[], bool], timeout: float, what: Callable[[], str] | str) -> None:
    """Ask until the answer is yes, for at most ``timeout`` seconds.

    :raises TimeoutError: naming ``what`` was waited for.
    """
    deadline = time.monotonic() + timeout
    while not is_true():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout} s for {what if isinstance(what, str) else what()}")
        time.sleep(INTERVAL_SECONDS)
