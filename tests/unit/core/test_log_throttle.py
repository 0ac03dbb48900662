"""What may happen often is told seldom."""

from __future__ import annotations

from arroyo_sync.core import log_throttle as rate_limit
from arroyo_sync.core.log_throttle import LastingFailure, LogThrottle
from tests.support.fakes import Clock


def test_each_subject_is_due_once_an_interval() -> None:
    """By itself, from when it was told last."""
    clock = Clock()
    throttle = LogThrottle(60.0, clock)
    assert [throttle.should_log("a"), throttle.should_log("a"), throttle.should_log("b")] == [True, False, True]
    clock.now += 59.0
    assert not throttle.should_log("a")
    clock.now += 1.0
    assert [throttle.should_log("a"), throttle.should_log("a")] == [True, False]


def test_it_does_not_grow_without_end() -> None:
    """Rather something is told twice."""
    throttle = LogThrottle(60.0, Clock())
    for index in range(2 * rate_limit.MAX_SUBJECTS):
        throttle.should_log(index)
    assert len(throttle._last_logged) <= rate_limit.MAX_SUBJECTS


def test_a_failure_is_told_once_it_has_lasted_and_then_once_a_minute() -> None:
    """What passes sooner isn't; its end is told if it was."""
    clock = Clock()
    failure = LastingFailure(5.0, clock)
    assert (failure.goes_on, failure.should_log(), failure.goes_on) == (False, False, True)
    clock.now += 4.9
    assert (failure.should_log(), failure.end(), failure.goes_on) == (False, False, False)
    assert not failure.should_log()
    clock.now += 5.0
    assert (failure.should_log(), failure.should_log()) == (True, False)
    clock.now += 59.5
    assert not failure.should_log()
    clock.now += 0.5
    assert failure.should_log()
    assert (failure.end(), failure.end()) == (True, False)


def test_a_failure_that_may_be_another_one_has_to_last_again() -> None:
    """The end of the one that was told is still to come."""
    clock = Clock()
    failure = LastingFailure(5.0, clock)
    failure.should_log()
    clock.now += 5.0
    assert failure.should_log()
    clock.now += 100.0
    failure.restart()
    assert (failure.goes_on, failure.should_log()) == (False, False)
    clock.now += 4.9
    assert not failure.should_log()
    assert failure.end()
