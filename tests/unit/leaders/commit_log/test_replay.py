"""How far a replay is, and when it is done."""

from __future__ import annotations

import logging

import pytest

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.leaders.commit_log.replay import OffsetRange, Progress, Replay, ReplayLog
from tests.support.fakes import Clock


def test_a_partition_is_replayed_when_its_end_was_passed() -> None:
    """Not one offset before, and the whole replay with its last partition."""
    replay = Replay({0: OffsetRange(0, 10), 1: OffsetRange(5, 6)})
    replay.passed(0, 9)
    replay.passed(1, 6)
    assert not replay.is_done
    assert (replay.is_pending(0), replay.is_pending(1)) == (True, False)
    assert replay.missing() == {0: OffsetRange(9, 10)}
    replay.passed(0, 10)
    assert replay.is_done


def test_a_partition_is_replayed_when_its_end_was_met() -> None:
    """Its last offsets hold no records."""
    replay = Replay({0: OffsetRange(0, 10)})
    replay.passed(0, 8)
    replay.reached_end(0)
    assert replay.is_done


def test_what_holds_nothing_is_replayed_at_once() -> None:
    """A new commit log, or one of which all was deleted."""
    assert Replay({0: OffsetRange(0, 0), 1: OffsetRange(7, 7)}).is_done
    assert Replay({}).is_done


def test_a_partition_may_have_to_be_replayed_again() -> None:
    """And if it holds nothing by then, it is done, though it was in the middle."""
    replay = Replay({0: OffsetRange(0, 10), 1: OffsetRange(0, 10)})
    replay.passed(0, 10)
    replay.add({0: OffsetRange(3, 20)})
    assert replay.missing() == {0: OffsetRange(3, 20), 1: OffsetRange(0, 10)}
    replay.add({0: OffsetRange(20, 20), 1: OffsetRange(10, 10)})
    assert replay.is_done


def test_others_are_ignored() -> None:
    """What is read beyond the replay is none of its business."""
    replay = Replay({0: OffsetRange(0, 10)})
    replay.passed(1, 5)
    replay.reached_end(1)
    assert replay.missing() == {0: OffsetRange(0, 10)}


def test_progress_counts_offsets_and_partitions() -> None:
    """From where each began, not from zero."""
    replay = Replay({0: OffsetRange(90, 100), 1: OffsetRange(0, 30), 2: OffsetRange(5, 5)})
    assert replay.progress() == Progress(1, 3, 0.0)
    replay.passed(0, 95)
    replay.passed(1, 15)
    assert replay.progress() == Progress(1, 3, 0.5)
    replay.passed(0, 200)
    assert replay.progress() == Progress(2, 3, 0.625)
    replay.reached_end(1)
    assert replay.progress() == Progress(3, 3, 1.0)


def test_partitions_that_hold_nothing_count_whenever_they_are_found() -> None:
    """Beside those that were done before."""
    replay = Replay({0: OffsetRange(5, 5)})
    replay.add({1: OffsetRange(7, 7), 2: OffsetRange(0, 10)})
    assert replay.progress() == Progress(2, 3, 0.0)


def test_progress_goes_on_when_others_are_to_be_replayed_too() -> None:
    """And what is read twice counts once."""
    replay = Replay({0: OffsetRange(0, 10)})
    replay.add({1: OffsetRange(0, 30)})
    for next_offset in (9, 9, 7):
        replay.passed(0, next_offset)
    assert replay.progress() == Progress(0, 2, 0.225)


# What is logged of it.


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock, caplog: pytest.LogCaptureFixture) -> ReplayLog:
    caplog.set_level(logging.INFO)
    log = ReplayLog("log", 10.0, clock)
    log.begin(100)
    return log


def test_how_far_a_replay_is_is_logged_now_and_then(
    log: ReplayLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """With how fast it is, since it began."""
    clock.now += 9.9
    log.log_progress(150, Progress(1, 3, 0.5), lambda: "unused")
    assert caplog.messages == []
    clock.now += 10.1
    log.log_progress(150, Progress(1, 3, 0.5), lambda: "unused")
    clock.now += 9.9
    log.log_progress(170, Progress(1, 3, 0.6), lambda: "unused")
    clock.now += 0.1
    log.log_progress(190, Progress(2, 3, 0.75), lambda: "unused")
    assert caplog.messages == [
        "Commit log log: 50% replayed (50 records, 1 of 3 partitions, 20.0 s, 2 records/s)",
        "Commit log log: 75% replayed (90 records, 2 of 3 partitions, 30.0 s, 3 records/s)",
    ]


def test_while_no_partition_is_known_it_is_logged_what_is_missing(
    log: ReplayLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a topic that isn't there yet."""
    clock.now += 10.0
    log.log_progress(100, Progress(0, 0, 1.0), lambda: "no broker answers")
    assert caplog.messages == ["Commit log log: not replayed yet, no broker answers"]


def test_the_end_of_a_replay_is_logged(log: ReplayLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Also of one that took no time; the next one counts anew."""
    log.log_end(105, Progress(3, 3, 1.0))
    clock.now += 1_000.0
    log.begin(105)
    clock.now += 2.0
    log.log_end(125, Progress(4, 4, 1.0))
    assert caplog.messages == [
        "Commit log log: replayed (5 records, 3 of 3 partitions, 0.0 s, 5000 records/s)",
        "Commit log log: replayed (20 records, 4 of 4 partitions, 2.0 s, 10 records/s)",
    ]


def test_why_partitions_are_read_again_is_logged_of_each_once_a_minute(
    log: ReplayLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is read again may be gone again at once; but one is no news of another."""
    for partitions in ([0], [0], [2, 0], [2, 0]):
        log.log_gone(partitions)
    clock.now += LOG_INTERVAL_SECONDS
    log.log_gone([0])
    assert caplog.messages == [
        f"Commit log log: the position in partitions {gone} is gone. They are read again from their beginning, and "
        "the gate is shut until then"
        for gone in ([0], [0, 2], [0])
    ]
