"""Whether something that may happen often, or go on, should be logged now; and a mark for what is told elsewhere."""

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


class LastingFailure:
    """Whether to log that something fails, which is once that has lasted and then once a minute; and that it is over.

    >>> seconds = iter([0.0, 5.0, 5.0, 10.0])
    >>> failure = LastingFailure(5.0, lambda: next(seconds))
    >>> [failure.should_log() for _ in range(3)], failure.end()
    ([False, True, False], True)

    Threads: one at a time.

    :param patience_seconds: for how long it isn't told.
    :param clock: monotonic seconds.
    """

    def __init__(self, patience_seconds: float, clock: Callable[[], float]) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._since: float | None = None
        self._is_told = False

    @property
    def goes_on(self) -> bool:
        """Whether it has failed since it was over last, or since `restart`."""
        return self._since is not None

    def should_log(self) -> bool:
        """It failed, once more or for the first time: whether to log that. Asking counts as logging."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since < self._patience_seconds or not self._throttle.should_log(None):
            return False
        self._is_told = True
        return True

    def restart(self) -> None:
        """Be patient anew if it fails again. That it failed isn't over yet, if that was told."""
        self._since = None

    def end(self) -> bool:
        """It doesn't fail any more: whether it was told that it does."""
        was_told, self._is_told, self._since = self._is_told, False, None
        return was_told
