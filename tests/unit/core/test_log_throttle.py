"""What may happen often is told seldom."""

from __future__ import annotations

from arroyo_sync.core import log_throttle as rate_limit
from arroyo_sync.core.log_throttle import OncePer
from tests.support.fakes import Clock


def test_each_subject_is_due_once_an_interval() -> None:
    """By itself, from when it was told last."""
    clock = Clock()
    once = OncePer(60.0, clock)
    assert [once.is_due("a"), once.is_due("a"), once.is_due("b")] == [True, False, True]
    clock.now += 59.0
    assert not once.is_due("a")
    clock.now += 1.0
    assert [once.is_due("a"), once.is_due("a")] == [True, False]


def test_it_does_not_grow_without_end() -> None:
    """Rather something is told twice."""
    once = OncePer(60.0, Clock())
    for index in range(2 * rate_limit.MAX_SUBJECTS):
        once.is_due(index)
    assert len(once._told_at) <= rate_limit.MAX_SUBJECTS
