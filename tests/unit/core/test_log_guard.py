"""Log handlers and filters that raise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import arroyo_sync
from arroyo_sync.core import log_guard
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LogThrottle
from tests.support.fakes import Clock

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
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """By which lost lines are told; none was before."""
    clock = Clock()
    monkeypatch.setattr(log_guard, "_throttle", LogThrottle(60.0, clock))
    return clock


@pytest.fixture
def guarded(clock: Clock) -> logging.Logger:
    return guarded_logger("arroyo_sync.some")


@pytest.fixture
def failing() -> Iterator[Filter]:
    logger, failing = logging.getLogger("arroyo_sync.some"), Filter()
    logger.addFilter(failing)
    yield failing
    logger.removeFilter(failing)


def test_a_line_is_written_as_ever(guarded: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing raises."""
    guarded.warning("a line")
    assert caplog.messages == ["a line"]


def test_what_a_line_raises_is_told_in_its_stead(
    guarded: logging.Logger, failing: Filter, caplog: pytest.LogCaptureFixture
) -> None:
    """Most that fails has failed for a moment; the next line may be written."""
    failing.errors = [OSError("no socket")]
    guarded.error("lost")
    guarded.error("written")
    assert caplog.messages == [LOST, "written"]


def test_a_filter_that_fails_each_time_is_of_no_matter(
    guarded: logging.Logger, failing: Filter, caplog: pytest.LogCaptureFixture
) -> None:
    """As where it looks for what is there on the program's own thread alone: nobody hears of it, and nothing ends."""
    failing.errors = [AttributeError("no request")] * 10
    for _ in range(5):
        guarded.warning("a line")
    assert caplog.messages == []


def test_it_is_told_once_an_interval(
    guarded: logging.Logger, failing: Filter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a handler that fails for an hour nobody wants to read ten lines a second."""
    for now in (0.0, 59.0, 60.0):
        clock.now = now
        failing.errors = [OSError("no socket")]
        guarded.warning("a line")
    assert caplog.messages == [LOST, LOST]


def test_a_factory_of_records_that_raises_costs_nothing(
    guarded: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that adds what the program keeps for its own thread. It ended the follower's, before any filter ran."""

    def no_request(*args: object, **kwargs: object) -> logging.LogRecord:
        raise LookupError("request")

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(no_request)
    try:
        guarded.warning("%s line", "a", extra={"told": True})
        try:
            raise OSError("gone")
        except OSError:
            guarded.exception("another")
    finally:
        logging.setLogRecordFactory(before)
    (told, first, second) = caplog.records
    assert told.getMessage() == "The factory of log records failed, and a line lacks what it adds: LookupError: request"
    assert (first.getMessage(), first.told, first.funcName) == (  # type: ignore[attr-defined]
        "a line",
        True,
        "test_a_factory_of_records_that_raises_costs_nothing",
    )
    assert (first.filename, first.levelno) == (Path(__file__).name, logging.WARNING)
    assert second.exc_info is not None
    assert str(second.exc_info[1]) == "gone"


def test_ctrl_c_comes_out(guarded: logging.Logger, failing: Filter) -> None:
    """In the middle of a line, too, it must end the program."""
    failing.errors = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        guarded.warning("a line")


def test_what_a_pipeline_logs_is_guarded() -> None:
    """The command's lines are nobody's pipeline."""
    package = Path(arroyo_sync.__file__).parent
    plain = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "= logging.getLogger(" in path.read_text(encoding="utf-8")
    }
    rest = {each for each in plain if not each.startswith("status/")}
    assert rest == {"core/log_guard.py"}
