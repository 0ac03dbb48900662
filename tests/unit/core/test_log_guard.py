"""Log handlers and filters that raise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import arroyo_sync
from arroyo_sync.core import log_guard
from arroyo_sync.core.log_guard import guarded_logger, harmless
from arroyo_sync.core.log_throttle import LogThrottle

LOST = "A line of the log is lost, since a handler or filter failed: OSError: no socket"


class Filter(logging.Filter):
    """Raises while it has something to raise."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if self.errors:
            raise self.errors.pop(0)
        return True


@pytest.fixture
def logger() -> logging.Logger:
    return logging.getLogger("arroyo_sync.some")


@pytest.fixture
def failing(logger: logging.Logger) -> Iterator[Filter]:
    failing = Filter()
    logger.addFilter(failing)
    yield failing
    logger.removeFilter(failing)


def test_a_line_is_written_as_ever(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing raises."""
    with harmless(logger):
        logger.warning("a line")
    assert caplog.messages == ["a line"]


def test_what_a_line_raises_is_told_in_its_stead(
    logger: logging.Logger, failing: Filter, caplog: pytest.LogCaptureFixture
) -> None:
    """Most that fails has failed for a moment."""
    failing.errors = [OSError("no socket")]
    with harmless(logger):
        logger.warning("a line")
    assert caplog.messages == [LOST]


def test_it_may_fail_again(logger: logging.Logger, failing: Filter, caplog: pytest.LogCaptureFixture) -> None:
    """Then nobody hears of it, and nothing ends of it."""
    failing.errors = [OSError("no socket"), OSError("no socket")]
    with harmless(logger):
        logger.warning("a line")
    assert caplog.messages == []
    assert failing.errors == []


def test_it_is_told_once_an_interval(logger: logging.Logger, failing: Filter, caplog: pytest.LogCaptureFixture) -> None:
    """Of a handler that fails for an hour nobody wants to read ten lines a second."""
    seconds = iter([0.0, 59.0, 60.0])
    throttle = LogThrottle(60.0, lambda: next(seconds))
    for _ in range(3):
        failing.errors = [OSError("no socket")]
        with harmless(logger, throttle):
            logger.warning("a line")
    assert caplog.messages == [LOST, LOST]


def test_what_is_no_exception_comes_out(logger: logging.Logger, failing: Filter) -> None:
    """Ctrl-C in the middle of a line must end the program."""
    failing.errors = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt), harmless(logger):
        logger.warning("a line")


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Nothing was lost before."""
    monkeypatch.setattr(log_guard, "_throttle", LogThrottle(60.0, lambda: 0.0))
    return guarded_logger("arroyo_sync.some")


def test_no_line_of_a_guarded_logger_raises(
    guarded: logging.Logger, failing: Filter, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is lost is told of; the next one may be written."""
    failing.errors = [OSError("no socket")]
    guarded.error("lost")
    guarded.error("written")
    assert caplog.messages == [LOST, "written"]


def test_a_filter_that_fails_each_time_is_of_no_matter(
    guarded: logging.Logger, failing: Filter, caplog: pytest.LogCaptureFixture
) -> None:
    """As where it looks for what is there on the program's own thread alone."""
    failing.errors = [AttributeError("no request")] * 10
    for _ in range(5):
        guarded.warning("a line")
    assert caplog.messages == []


def test_ctrl_c_comes_out_of_a_guarded_logger(guarded: logging.Logger, failing: Filter) -> None:
    """As out of any."""
    failing.errors = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        guarded.warning("a line")


def test_what_a_followers_threads_log_is_guarded() -> None:
    """A leader's lines are, each where it is logged; the command's are nobody's pipeline."""
    package = Path(arroyo_sync.__file__).parent
    plain = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "= logging.getLogger(" in path.read_text(encoding="utf-8")
    }
    rest = {each for each in plain if not each.startswith(("status/", "leaders/commit_log/publishing/"))}
    assert rest == {"core/log_guard.py"}
