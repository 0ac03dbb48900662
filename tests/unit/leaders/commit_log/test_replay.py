"""How far a replay is, and when it is done."""

from __future__ import annotations

from arroyo_sync.leaders.commit_log.log_topic import OffsetRange
from arroyo_sync.leaders.commit_log.replay import Progress, Replay


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
