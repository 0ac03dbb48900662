"""Says whether something that may happen often should be told now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

MAX_SUBJECTS = 10_000


class OncePer:
    """Due at the first time, and then not again for an interval; each subject by itself.

    >>> seconds = iter([0.0, 30.0, 60.0])
    >>> once = OncePer(60.0, lambda: next(seconds))
    >>> [once.is_due("a key that can't be read") for _ in range(3)]
    [True, False, True]

    Any thread may ask.

    :param clock: monotonic seconds.
    """

    def __init__(self, interval_seconds: float, clock: Callable[[], float]) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._told_at: dict[Hashable, float] = {}

    def is_due(self, subject: Hashable) -> bool:
        """Whether to tell of it now. Asking counts as telling."""
        with self._lock:
            now = self._clock()
            told_at = self._told_at.get(subject)
            if told_at is not None and now - told_at < self._interval_seconds:
                return False
            if told_at is None and len(self._told_at) >= MAX_SUBJECTS:
                self._told_at.clear()  # rather tell something twice than grow without end
            self._told_at[subject] = now
            return True
