"""What may happen often is told seldom."""

from __future__ import annotations

from arroyo_sync.core import log_throttle as rate_limit
from arroyo_sync.core.log_throttle import LogThrottle
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
