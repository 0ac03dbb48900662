"""The table of what was published: slots by partition and group, and what of it a commit-log partition said."""

from __future__ import annotations

import pytest

from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.leaders import offset_table
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.offset_table import OffsetTable, chunks

KEY, OTHER = ("events", 0), ("events", 1)


def report(offset: int, group: str = "b", log_partition: int = 0, timestamp_ms: int = 5) -> CommitReport:
    return CommitReport(KEY, group, offset, timestamp_ms, log_partition, offset, 1.5, "topic-id")


def test_each_group_has_a_slot_of_its_own() -> None:
    """In the order of their names, whoever published first; a group that is named twice is one."""
    table = OffsetTable(["b", "a", "b"])
    published_offset = table.take(report(7), 1.0).published_offset
    assert table.groups == ("a", "b")
    assert list(table.row(KEY)) == [None, published_offset]
    assert list(table.filled(KEY)) == [("b", published_offset)]
    assert (table.slot(KEY, "a"), table.slot(KEY, "b")) == (None, published_offset)


def test_nothing_is_there_of_a_partition_that_nobody_published_of() -> None:
    """Nor is anything made by looking."""
    table = OffsetTable(["a"])
    assert (list(table.row(KEY)), list(table.filled(KEY)), table.slot(KEY, "a"), table.snapshot(KEY)) == (
        [],
        [],
        None,
        {},
    )
    assert table.forget_log_partition(KEY, 0) == []
    table.drop(KEY)
    assert table.keys() == []


def test_a_report_tells_which_one_counted_before() -> None:
    """None before the first; the same as now, if it doesn't count itself."""
    table = OffsetTable(["b"])
    first, second = report(1), report(2)
    assert table.take(first, 1.0).previous is None
    change = table.take(second, 2.0)
    assert (change.previous, change.published_offset.latest) == (first, second)
    assert change.published_offset.read_at_seconds == 2.0
    change = table.take(first, 3.0)
    assert (change.previous, change.published_offset.latest) == (second, second)


def test_what_a_commit_log_partition_said_is_dropped_and_it_is_told_where_another_report_counts_now() -> None:
    """There alone a ruling is to be made anew."""
    table = OffsetTable(["a", "b"])
    older, newer = report(1, log_partition=0, timestamp_ms=5), report(2, log_partition=1, timestamp_ms=6)
    published_offset = table.take(older, 1.0).published_offset
    table.take(newer, 1.0)
    assert table.forget_log_partition(KEY, 2) == []
    assert table.forget_log_partition(KEY, 1) == [published_offset]
    assert published_offset.latest == older
    table.take(newer, 1.0)
    assert table.forget_log_partition(KEY, 0) == []
    assert published_offset.latest == newer
    assert table.forget_log_partition(KEY, 1) == []
    assert table.slot(KEY, "b") is None


def test_of_what_other_commit_log_partitions_said_the_latest_counts() -> None:
    """Not the highest offset, nor the highest commit-log partition."""
    table = OffsetTable(["b"])
    for offset, log_partition, timestamp_ms in ((9, 0, 1), (3, 1, 2), (5, 2, 3), (8, 3, 1)):
        published_offset = table.take(report(offset, "b", log_partition, timestamp_ms), 1.0).published_offset
    table.forget_log_partition(KEY, 2)
    assert published_offset.latest.offset == 3


def test_a_snapshot_has_all_that_the_last_report_said() -> None:
    """And when it was read."""
    table = OffsetTable(["a", "b"])
    table.take(report(7), 3.0)
    reason = "the brokers haven't answered yet"
    assert table.snapshot(KEY) == {"b": LeaderOffset(7, 5, 3.0, 1.5, False, reason, "topic-id")}


@pytest.mark.parametrize(
    ("count", "parts"),
    [
        pytest.param(0, [], id="nothing"),
        pytest.param(1, [1], id="one"),
        pytest.param(3, [3], id="as many as go"),
        pytest.param(4, [3, 1], id="one more"),
        pytest.param(7, [3, 3, 1], id="many"),
    ],
)
def test_many_are_handled_in_parts(count: int, parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the lock is free in between: each once, and in their order."""
    monkeypatch.setattr(offset_table, "CHUNK", 3)
    items = list(range(count))
    found = chunks(items)
    assert [len(chunk) for chunk in found] == parts
    assert [item for chunk in found for item in chunk] == items
