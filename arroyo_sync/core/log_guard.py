"""What is logged can't raise: handlers and filters are anybody's code, and a socket that they write to may be gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle

_throttle = LogThrottle(LOG_INTERVAL_SECONDS, time.monotonic)


def guarded_logger(name: str) -> logging.Logger:
    """The logger of this name, of which no line raises: for whoever must do more than log.

    Whatever a handler or filter raises is told in the line's stead, if it can be, and once an interval at most. Where
    the factory of records raises, that is told, too, and the line is one of `logging`'s own. Either may fail in some
    threads alone, as what adds a request's number that the program keeps for its own thread. What isn't an `Exception`
    comes out, and what a signal handler of Arroyo's raises meanwhile (`INTERRUPTIONS`).
    """
    logger = logging.getLogger(name)

    # Of the class both are looked up each time, since others replace them, too.
    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        try:
            return type(logger).makeRecord(logger, *args, **kwargs)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            tell("The factory of log records failed, and a line lacks what it adds: %s: %s", error)
            return _plain_record(*args, **kwargs)

    def handle(record: logging.LogRecord) -> None:
        try:
            type(logger).handle(logger, record)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            tell("A line of the log is lost, since a handler or filter failed: %s: %s", error)

    def tell(what: str, error: Exception) -> None:
        if _throttle.should_log(what):
            try:
                logger.warning(what, type(error).__name__, error)
            except INTERRUPTIONS:
                raise
            except Exception:
                pass

    # What all that logs a line calls.
    logger.makeRecord = make_record  # type: ignore[method-assign]
    logger.handle = handle  # type: ignore[method-assign]
    return logger


def _plain_record(
    name: str,
    level: int,
    file: str,
    line: int,
    message: object,
    args: Any,
    exc_info: Any,
    function: str | None = None,
    extra: Mapping[str, object] | None = None,
    stack: str | None = None,
) -> logging.LogRecord:
    """What ``Logger.makeRecord`` makes where nobody has put another factory."""
    record = logging.LogRecord(name, level, file, line, message, args, exc_info, function, stack)
    record.__dict__.update(extra or {})
    return record
