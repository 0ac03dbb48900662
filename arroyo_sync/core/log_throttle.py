"""Whether something that may happen often should be logged now; and a mark for what is told elsewhere, too."""

from __future__ import annotations

from collections.abc import Callable, Hashable

LOG_INTERVAL_SECONDS = 60.0
"""How often the same cause is logged at most."""

MAX_SUBJECTS = 10_000

TOLD_BY_MONITOR = "arroyo_sync_told_by_monitor"
"""An attribute of log records (``extra={TOLD_BY_MONITOR: True}``) and, by `mark_told`, of errors: the monitor of their
follower makes a Sentry event of that cause, or has."""


def mark_told(error: BaseException) -> None:
    """See `TOLD_BY_MONITOR`."""
    setattr(error, TOLD_BY_MONITOR, True)


class LogThrottle:
    """Due at the first time, and then not again for an interval; each subject by itself.

    >>> seconds = iter([0.0, 30.0, 60.0])
    >>> throttle = LogThrottle(60.0, lambda: next(seconds))
    >>> [throttle.should_log("a key that can't be read") for _ in range(3)]
    [True, False, True]

    Any thread may ask, also a signal handler: there is no lock. Two that ask at the same moment may both get True.

    :param clock: monotonic seconds.
    """

    def __init__(self, interval_seconds: float, clock: Callable[[], float]) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._last_logged: dict[Hashable, float] = {}

    def should_log(self, subject: Hashable) -> bool:
        """Whether to log it now. Asking counts as logging."""
        now = self._clock()
        last_logged = self._last_logged.get(subject)
        if last_logged is not None and now - last_logged < self._interval_seconds:
            return False
        if last_logged is None and len(self._last_logged) >= MAX_SUBJECTS:
            self._last_logged.clear()  # rather log something twice than grow without end
        self._last_logged[subject] = now
        return True
