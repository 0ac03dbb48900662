"""The status as a table for people, by rich.

Threads: none. It only makes what is to be printed.
"""

from __future__ import annotations

import time

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionState
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall
from arroyo_sync.status.check import ExitStatus, Status

WIDE_COLUMNS = 120

UNKNOWN = "?"
NONE = "-"

STATE_STYLES = {
    SynchronizedPartitionState.UNKNOWN: "red",
    SynchronizedPartitionState.LOCAL_BEHIND: "yellow",
    SynchronizedPartitionState.SYNCHRONIZED: "green",
    SynchronizedPartitionState.REMOTE_BEHIND: "magenta",
}

LEGEND = (
    "Every offset is the next one: a group at 42 has done everything up to 41; a topic that ends at 42 holds up to 41.",
    "published: what the leader announced on the commit log, and how long ago; this counts. committed: its commit on "
    "the broker, which comes up to a second later, by its commit policy.",
    "remote: the lowest published offset; messages below it are released. local: what the follower has committed.",
    "gated lag: messages that wait for a leader. slow lag: released messages that wait for the follower.",
)
LEGEND_WITHOUT_COMMIT_LOG = (
    LEGEND[0],
    "committed: the leader's commit on the broker; remote: the lowest of them; messages below it are released.",
    "local: what the follower has committed.",
    LEGEND[3],
)


def status_table(
    status: Status, *, follower_group: str, uses_commit_log: bool, is_narrow: bool = False
) -> RenderableType:
    """A table of all partitions, what stands still, and the legend.

    :param is_narrow: leave out what can best be missed: low watermarks, states, and what leaders committed beside what
        they published.
    """
    snapshot = status.snapshot
    groups = [leader.group for leader in snapshot.partitions[0].leaders] if snapshot.partitions else []
    topic = snapshot.partitions[0].topic if snapshot.partitions else ""
    title = Text(f"{topic}, followed by {follower_group}", style="bold")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("partition", justify="right", no_wrap=True)
    for name in ("high",) if is_narrow else ("low", "high"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        what = "\ncommitted"
        if uses_commit_log:
            what = "\npublished, age" if is_narrow else "published, age,\ncommitted"
        table.add_column(f"{group}\n{what}", justify="right", no_wrap=True)
    for name in ("remote", "local", *([] if is_narrow else ["state"]), "gated\nlag", "slow\nlag"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    table.add_column("waits for", overflow="fold")
    stalls = {(stall.topic, stall.partition): stall for stall in status.stalls}
    leaders = _leader_cells(snapshot, shows_age=uses_commit_log, shows_commit=uses_commit_log and not is_narrow)
    for partition in snapshot.partitions:
        table.add_row(*_row(partition, leaders[partition.key], stalls.get(partition.key), is_narrow))
    legend = LEGEND if uses_commit_log else LEGEND_WITHOUT_COMMIT_LOG
    return Group(title, Text(), table, Text(), *_verdict(status), *(Text(line, style="dim") for line in legend))


def print_status(console: Console, status: Status, *, follower_group: str, uses_commit_log: bool) -> None:
    """Print the table."""
    is_narrow = console.width < WIDE_COLUMNS
    console.print(
        status_table(status, follower_group=follower_group, uses_commit_log=uses_commit_log, is_narrow=is_narrow)
    )


def _leader_cells(snapshot: Snapshot, *, shows_age: bool, shows_commit: bool) -> dict[PartitionKey, list[Text]]:
    """One cell for each leader, its parts below one another."""
    cells: dict[PartitionKey, list[Text]] = {partition.key: [] for partition in snapshot.partitions}
    for column in zip(*(partition.leaders for partition in snapshot.partitions), strict=True):
        ages = [_age(leader.age_seconds) for leader in column]
        commits = [_number(leader.committed_offset, NONE) for leader in column]
        age_width, commit_width = max(map(len, ages)), max(map(len, commits))
        for partition, leader, age, commit in zip(snapshot.partitions, column, ages, commits, strict=True):
            cell = _published(leader)
            if shows_age:
                cell.append(f"  {age:>{age_width}}", style="dim")
            if shows_commit:
                cell.append(f"  {commit:>{commit_width}}", style="dim")
            cells[partition.key].append(cell)
    return cells


def _row(
    partition: PartitionSnapshot, leaders: list[Text], stall: Stall | None, is_narrow: bool
) -> list[RenderableType]:
    state = partition.state
    return [
        str(partition.partition),
        *([] if is_narrow else [_number(partition.low_watermark)]),
        _number(partition.high_watermark),
        *leaders,
        _number(partition.remote_offset),
        _number(partition.local_offset, NONE),
        *([] if is_narrow else [Text(state.name, style=STATE_STYLES[state])]),
        _lag(partition.gated_lag),
        _lag(partition.released_lag),
        _waits_for(partition, stall),
    ]


def _verdict(status: Status) -> list[Text]:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(status.snapshot.taken_at))
    if status.stalls:
        lines = [
            Text(f"{at}  stalled: {len(status.stalls)} of {len(status.snapshot.partitions)} partitions", "bold red")
        ]
        return lines + [Text(f"  {stall}", style="red") for stall in status.stalls[:5]]
    if status.exit_status is ExitStatus.UNKNOWN:
        return [Text(f"{at}  can't tell: {doubt}", style="bold yellow") for doubt in status.doubts]
    return [Text(f"{at}  nothing stands still", style="bold green")]


def _waits_for(partition: PartitionSnapshot, stall: Stall | None) -> Text:
    style = "" if stall is None else "bold red"
    blocked_by = partition.blocked_by
    if partition.state is SynchronizedPartitionState.LOCAL_BEHIND and partition.released_lag:
        return Text("the follower", style=style)
    if blocked_by is None:
        return Text("")
    if blocked_by.published_offset is None:
        return Text(f"{blocked_by.group} (silent)", style=style or "yellow")
    if blocked_by.is_rejected:
        return Text(f"{blocked_by.group} (past the end)", style=style or "yellow")
    return Text(blocked_by.group, style=style)


def _published(leader: LeaderSnapshot) -> Text:
    if leader.published_offset is None:
        return Text(NONE, style="yellow")
    return Text(str(leader.published_offset), style="red" if leader.is_rejected else "")


def _number(value: int | None, missing: str = UNKNOWN) -> str:
    return missing if value is None else str(value)


def _lag(value: int | None) -> Text:
    if value is None:
        return Text(UNKNOWN)
    return Text(str(value), style="" if value else "dim")


def _age(seconds: float | None) -> str:
    """Two digits or so: ages are for looking at.

    >>> [_age(each) for each in (None, 0.04, 4.25, 65.0, 7200.0, 200_000.0)]
    ['-', '0.0 s', '4.2 s', '65 s', '2.0 h', '2.3 d']
    """
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < length * 120:
            return f"{seconds / length:.0f} {unit}" if length < 3600 else f"{seconds / length:.1f} h"
    return f"{seconds / 86_400:.1f} d"
