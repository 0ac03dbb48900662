"""What the benchmark of faults reads out of journals: a wrong number there would be believed."""

from __future__ import annotations

from tests.benchmarks.faults_told.__main__ import Told, seconds_told, table

JOURNAL = [
    (90.0, "log", "WARNING events[0] has stood still: before"),
    (103.0, "log", "WARNING something else"),
    (115.5, "log", "WARNING events[0] has stood still for 15 s"),
    (116.0, "metric", "arroyo_sync.waiting follower 0"),
    (116.5, "metric", "arroyo_sync.waiting leader 1"),
]


def test_the_first_line_after_the_fault_that_tells_of_it_counts() -> None:
    """Of its kind, with all that is looked for; none is none."""
    assert seconds_told(JOURNAL, 100.0, "log", "has stood still") == 15.5
    assert seconds_told(JOURNAL, 100.0, "metric", "arroyo_sync.waiting", " 1") == 16.5
    assert seconds_told(JOURNAL, 100.0, "log", "") == 3.0
    assert seconds_told(JOURNAL, 100.0, "event", "") is None


def test_the_table_has_a_row_for_each_fault() -> None:
    """With a dash for what wasn't told."""
    told = Told("leader stopped", 16.3, 16.4, None, None, {"waiting": 1.25, "stalled": None}, 1, None, None, [])
    assert table([told]).splitlines()[2] == "| leader stopped | 16.3 | 16.4 | - | - | - | waiting 1.2 | 1 | - |"
