"""What is logged can't raise: handlers and filters are anybody's code, and a socket that they write to may be gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle

_throttle = LogThrottle(LOG_INTERVAL_SECONDS, time.monotonic)


def guarded_logger(name: str) -> logging.Logger:
    """The logger of this name, of which every line is `harmless`: for whoever must do more than log.

    A filter may fail in these threads alone, as one that adds what the program keeps for its own thread.
    """
    logger = logging.getLogger(name)

    def handle(record: logging.LogRecord) -> None:
        with harmless(logger, _throttle):
            type(logger).handle(logger, record)  # looked up each time, since others replace it, too

    logger.handle = handle  # type: ignore[method-assign] # what all that logs a line calls
    return logger


@contextmanager
def harmless(logger: logging.Logger, throttle: LogThrottle | None = None) -> Iterator[None]:
    """Whatever the lines within raise is told in their stead, if it can be, and as often as the throttle says.

    What isn't an `Exception` comes out, as where a signal has interrupted the handler.

    :param throttle: ``None``: each time, for lines that don't come often.
    """
    try:
        yield
    except Exception as error:
        with suppress(Exception):
            if throttle is None or throttle.should_log("log handler"):
                logger.warning(
                    "A line of the log is lost, since a handler or filter failed: %s: %s", type(error).__name__, error
                )
