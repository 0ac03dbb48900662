"""What the Sentry SDK raises: it costs what was to be sent, and nothing else.

It may be a hook's of the user's: up to 2.66.0 the SDK lets out what a ``traces_sampler`` or ``before_send_metric``
raises.

Threads: any thread may call anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle

logger = guarded_logger(__name__)


class Failures:
    """Counts failures, and logs one of them at most once a minute.

    :param effect: what comes of them, to follow "and".
    :param clock: monotonic seconds.
    """

    def __init__(self, effect: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._effect = effect
        self._numbers = count(1)  # which any thread may draw from without a lock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)

    def note(self, what: str, error: Exception) -> None:
        """This was to be sent, and the SDK raised that."""
        number = next(self._numbers)
        if self._throttle.should_log("failure"):
            # A warning: of an error the SDK would make an event, once a minute.
            logger.warning(
                "Sentry's SDK failed to send %s, and %s. Does a hook that you gave it raise? Failures so far: %d",
                what,
                self._effect,
                number,
                exc_info=error,
            )
