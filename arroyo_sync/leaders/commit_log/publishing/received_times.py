"""When the events of a message were first received by the whole system, as the user's function tells.

Threads: the processor's calls everything; any may read the count.

Failures
    What the function raises, and what it returns that is no time, is logged, at most once a minute, and costs nothing
    but these times. What only interrupts it comes out: `INTERRUPTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from arroyo.types import Message

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LogThrottle

logger = guarded_logger(__name__)

ReceivedTimestamps = Callable[[Message[Any]], Iterable[float]]
"""From a message, maybe a batch, to Unix seconds, of which there may be none."""


class ReceivedTimes:
    """See the module's docstring."""

    def __init__(self, timestamps_of: ReceivedTimestamps, throttle: LogThrottle) -> None:
        self._timestamps_of = timestamps_of
        self._throttle = throttle
        self.dropped = 0
        """How many times weren't finite numbers."""

    def of(self, message: Message[Any]) -> list[float]:
        """Unix seconds."""
        try:
            times = [float(time) for time in self._timestamps_of(message)]
        except INTERRUPTIONS:
            raise
        except Exception as error:
            if self._throttle.should_log("raised"):
                logger.warning("received_timestamps failed: %s: %s", type(error).__name__, error, exc_info=error)
            return []
        finite = [time for time in times if math.isfinite(time)]
        if len(finite) < len(times):
            self.dropped += len(times) - len(finite)
            if self._throttle.should_log("dropped"):
                logger.warning(
                    "received_timestamps returned what is no time, such as NaN: dropped (%d so far)", self.dropped
                )
        return finite
