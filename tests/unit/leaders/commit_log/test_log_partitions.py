"""Which partitions the commit log has, and whether all were replayed."""

from __future__ import annotations

import pytest

from arroyo_sync.leaders.commit_log.log_partitions import LogPartitions
from arroyo_sync.leaders.commit_log.replay import OffsetRange, Progress
from arroyo_sync.leaders.commit_report import CommitReport


def report(offset: int, log_offset: int, log_partition: int = 0, topic: str = "events") -> CommitReport:
    return CommitReport((topic, 0), "g", offset, 0, log_partition, log_offset)


@pytest.fixture
def partitions() -> LogPartitions:
    """Two partitions, both being replayed up to offset 5."""
    made = LogPartitions()
    made.restart([0, 1])
    made.begin({0: OffsetRange(0, 5), 1: OffsetRange(2, 5)})
    return made


def test_it_is_replayed_once_every_partition_has_passed_or_met_its_end(partitions: LogPartitions) -> None:
    """What is found and not begun yet counts as well."""
    assert partitions.missing() == "it still has to read partitions 0 (read up to 0 of 5), 1 (read up to 2 of 5)"
    assert partitions.passed(0, [report(1, 4)], 5) == [report(1, 4)]
    assert not partitions.is_replayed
    partitions.reached_end(1)
    assert partitions.is_replayed
    assert partitions.missing() is None
    partitions.find([0, 1, 2], is_open=False)
    assert not partitions.is_replayed


def test_an_added_partition_counts_once_it_was_replayed(partitions: LogPartitions) -> None:
    """Meanwhile the others do, and only its last report of each key is kept."""
    assert partitions.find([0, 1, 2], is_open=True) == [2]
    partitions.begin({2: OffsetRange(0, 3)})
    assert partitions.passed(2, [report(90, 0, 2)], 1) == ()
    assert partitions.passed(2, [report(8, 1, 2)], 2) == ()
    assert partitions.take_staged() == []
    assert partitions.passed(0, [report(7, 5)], 6) == [report(7, 5)]
    partitions.passed(2, [], 3)
    assert partitions.take_staged() == [report(8, 1, 2)]
    assert partitions.passed(2, [report(9, 3, 2)], 4) == [report(9, 3, 2)]


def test_what_is_forgotten_is_to_be_read_again(partitions: LogPartitions) -> None:
    """Also an added one that was being replayed apart, which then holds up the gate like any other."""
    partitions.passed(0, [], 5)
    partitions.passed(1, [], 5)
    partitions.find([0, 1, 2, 3], is_open=True)
    partitions.begin({2: OffsetRange(0, 3)})
    partitions.passed(2, [report(8, 1, 2)], 2)
    assert partitions.forget([0, 2, 3]) == [0, 2]
    assert (partitions.found, partitions.positions) == ({0, 2, 3}, {1: 5})
    partitions.begin({each: OffsetRange(0, 1) for each in (0, 2, 3)})
    assert partitions.take_staged() == []
    assert not partitions.is_replayed
    assert partitions.passed(2, [report(9, 0, 2)], 1) == [report(9, 0, 2)]


def test_what_is_staged_of_other_topics_can_be_dropped(partitions: LogPartitions) -> None:
    """The data topic may become known while a partition is replayed apart."""
    partitions.find([0, 1, 2], is_open=True)
    partitions.begin({2: OffsetRange(0, 2)})
    partitions.passed(2, [report(1, 0, 2), report(2, 1, 2, "other")], 2)
    partitions.retain_topic("events")
    assert partitions.take_staged() == [report(1, 0, 2)]


def test_partitions_that_are_replayed_apart_do_not_hold_up_the_gate(partitions: LogPartitions) -> None:
    """Neither before they are read nor while they are; and they count for no progress of the others."""
    partitions.passed(0, [], 5)
    partitions.passed(1, [], 5)
    assert partitions.find([0, 1, 2, 3], is_open=True) == [2, 3]
    assert partitions.is_replayed
    partitions.begin({2: OffsetRange(0, 3)})
    assert partitions.is_replayed
    assert (partitions.missing(), partitions.progress()) == (None, Progress(2, 2, 1.0))
    partitions.passed(2, [report(8, 0, 2)], 1)
    partitions.reached_end(2)
    assert partitions.take_staged() == [report(8, 0, 2)]
    assert partitions.take_staged() == []


def test_progress_is_that_of_the_replay(partitions: LogPartitions) -> None:
    """Of what was there when it began."""
    partitions.passed(0, [], 5)
    assert partitions.progress() == Progress(1, 2, 0.625)


def test_a_few_of_the_missing_partitions_are_named() -> None:
    """There may be a thousand."""
    partitions = LogPartitions()
    partitions.restart(range(7))
    partitions.begin({each: OffsetRange(0, 9) for each in (6, 5, 4, 3, 2)})
    named = ", ".join(f"{each} (read up to 0 of 9)" for each in range(2, 7))
    assert partitions.missing() == f"it still has to read partitions {named}"
    partitions.begin({each: OffsetRange(0, 9) for each in (0, 1)})
    named = ", ".join(f"{each} (read up to 0 of 9)" for each in range(5))
    assert partitions.missing() == f"it still has to read partitions {named} and 2 more"


def test_partitions_are_found_one_by_one() -> None:
    """Each is new once, and is to be read until that begins."""
    partitions = LogPartitions()
    assert (partitions.is_replayed, partitions.missing()) == (True, None)
    assert partitions.find([1], is_open=False) == [1]
    assert partitions.find([0, 1, 2], is_open=False) == [0, 2]
    assert partitions.found == {0, 1, 2}
    assert not partitions.is_replayed
