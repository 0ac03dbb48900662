from __future__ import annotations

import io

import pytest
from rich.console import Console

from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall, WaitsFor
from arroyo_sync.status.check import Status
from arroyo_sync.status.table import print_status

LEADERS = (
    LeaderSnapshot("indexers", 900, age_seconds=4.25, committed_offset=890),
    LeaderSnapshot("writers", 600, age_seconds=7200.0, committed_offset=None),
)
SILENT = (LEADERS[0], LeaderSnapshot("writers"))
IMPOSSIBLE = (LEADERS[0], LeaderSnapshot("writers", 5000, age_seconds=65.0, is_rejected=True))
SNAPSHOT = Snapshot(
    1700000000.0,
    (
        PartitionSnapshot("events", 0, 400, 600, 7, 1000, LEADERS),
        PartitionSnapshot("events", 1, 600, 600, 7, 1000, LEADERS),
        PartitionSnapshot("events", 2, None, None, 7, 1000, SILENT),
        PartitionSnapshot("events", 3, 1000, None, 7, 1001, IMPOSSIBLE),
    ),
)
STALL = Stall("events", 1, WaitsFor.LEADER, 300.0, 600, 600, 400, "writers", 600)


def shown(status: Status, *, width: int = 160, uses_commit_log: bool = True) -> list[str]:
    file = io.StringIO()
    print_status(Console(file=file, width=width), status, follower_group="forwarder", uses_commit_log=uses_commit_log)
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_a_row_for_each_partition() -> None:
    """Watermarks, what every leader published, when, and committed, remote, local, state, both lags, and for whom."""
    lines = shown(Status(SNAPSHOT))
    assert lines[0] == "events, followed by forwarder"
    assert [line for line in lines if line[:2] in ("0 ", "1 ", "2 ", "3 ")] == [
        "0 7 1000 900 4.2 s 890 600 2.0 h - 600 400 LOCAL_BEHIND 400 200 the follower",
        "1 7 1000 900 4.2 s 890 600 2.0 h - 600 600 SYNCHRONIZED 400 0 writers",
        "2 7 1000 900 4.2 s 890 - - - ? - UNKNOWN 993 0 writers (silent)",
        "3 7 1001 900 4.2 s 890 5000 65 s - ? 1000 UNKNOWN 1 0 writers (past the end)",
    ]


def test_a_narrow_terminal_leaves_out_what_can_be_missed() -> None:
    """Not for whom a partition waits."""
    lines = shown(Status(SNAPSHOT), width=90)
    assert "1 1000 900 4.2 s 600 2.0 h 600 600 400 0 writers" in lines


def test_without_a_commit_log_the_commits_on_the_broker_are_shown_and_explained() -> None:
    """Nothing is said of publishing."""
    lines = shown(Status(SNAPSHOT), uses_commit_log=False)
    assert "1 7 1000 900 600 600 600 SYNCHRONIZED 400 0 writers" in lines
    assert not any("published" in line for line in lines)
    assert any("committed: the leader's commit on the broker" in line for line in lines)


def test_the_legend_explains_the_next_offset_and_the_brokers_delay() -> None:
    """Being off by one, and taking a commit's delay for a fault, are what operators report most."""
    text = " ".join(shown(Status(SNAPSHOT)))
    assert "Every offset is the next one: a group at 42 has done everything up to 41" in text
    assert "comes up to a second later, by its commit policy" in text


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (Status(SNAPSHOT), ["2023-11-14 22:13:20 UTC nothing stands still"]),
        (
            Status(SNAPSHOT, (STALL,)),
            [
                "2023-11-14 22:13:20 UTC stalled: 1 of 4 partitions",
                "events[1] has stood still for 300 s at 600: 400 messages wait for group 'writers', which is at 600",
            ],
        ),
        (Status(SNAPSHOT, (), ("nobody knows",)), ["2023-11-14 22:13:20 UTC can't tell: nobody knows"]),
    ],
    ids=["going on", "stalled", "unknown"],
)
def test_the_verdict_is_said(status: Status, says: list[str]) -> None:
    """In one line, and whose fault it is in the next."""
    lines = shown(status)
    first = lines.index(says[0])
    assert lines[first : first + len(says)] == says


def test_an_empty_status_is_shown_all_the_same() -> None:
    """A topic always has partitions, but a table of none is no reason to fail."""
    assert any("nothing stands still" in line for line in shown(Status(Snapshot(0.0, ()))))
