"""What is logged can't raise: handlers and filters are anybody's code, and a socket that they write to may be gone."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle

_throttle = LogThrottle(LOG_INTERVAL_SECONDS, time.monotonic)


def guarded_logger(name: str) -> logging.Logger:
    """The logger of this name, of which no line raises: for whoever must do more than log.

    Whatever a handler or filter raises is told in the line's stead, if it can be, and once an interval at most. It may
    fail in some threads alone, as a filter that adds what the program keeps for its own thread. What isn't an
    `Exception` comes out, as where a signal has interrupted the handler.
    """
    logger = logging.getLogger(name)

    def handle(record: logging.LogRecord) -> None:
        try:
            type(logger).handle(logger, record)  # looked up each time, since others replace it, too
        except Exception as error:
            if _throttle.should_log("log handler"):
                with suppress(Exception):
                    logger.warning(
                        "A line of the log is lost, since a handler or filter failed: %s: %s",
                        type(error).__name__,
                        error,
                    )

    logger.handle = handle  # type: ignore[method-assign] # what all that logs a line calls
    return logger
