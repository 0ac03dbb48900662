"""The status for people: a summary, a table that fits the terminal, and details of the worst partitions.

Guarantees
    - No line is wider than the given width, which is at least `MIN_COLUMNS`, and no number is ever cut: a column that
      has no room is left out, and what it would have said of the worst partitions stands below the table.
    - Names are shown as they are, without anything that a terminal would obey, and shortened where they are long.

Threads: none. It only makes what is to be printed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict
from arroyo_sync.status.arguments import LEGEND, LEGEND_WITHOUT_COMMIT_LOG
from arroyo_sync.status.check import Status
from arroyo_sync.status.members import Members
from arroyo_sync.status.summary import (
    GAP,
    GRADE_STYLES,
    NONE,
    View,
    age,
    number,
    safe,
    shown_name,
    summary_lines,
    wrapped,
)

MIN_COLUMNS = 80
MAX_COLUMNS = 100_000
DETAILED_PARTITIONS = 5
"""So many are explained below the table: the worst of each cause."""
WAITS_FOR_COLUMNS = 12
"""The least room for whom a partition waits."""
MOST_WAITS_FOR_COLUMNS = 32
"""So much room it gets before further columns get any."""


def status_lines(status: Status, view: View, width: int, members: Members | None = None) -> list[Text]:
    """What is printed, line by line.

    :param width: columns; ``view.is_wide`` goes beyond it.
    """
    members = members or {}
    wanted = [each for each in status.verdicts if _is_wanted(each, view)]
    shown = wanted if view.max_rows is None else wanted[: view.max_rows]
    lines = [*summary_lines(status, view, width, members), Text()]
    rows, has_groups = _table(status, shown, view, width, members)
    lines += rows
    if cut := len(wanted) - len(shown):
        lines.append(Text(f"{cut} more partitions are left out: --all shows them", "dim"))
    if others := len(status.verdicts) - len(wanted):
        lines.append(Text(f"{others} other partitions were not asked for", "dim"))
    lines += _details(status, shown, view, width, members, has_groups)
    if view.shows_legend:
        legend = wrapped(LEGEND if view.uses_commit_log else LEGEND_WITHOUT_COMMIT_LOG, width, "dim", indent="")
        is_too_long = view.screen_lines is not None and len(lines) + len(legend) + 2 > view.screen_lines
        lines += [Text(), *([Text("--help says what the columns mean", "dim")] if is_too_long else legend)]
    return lines


def rendered(lines: Sequence[Text], *, is_terminal: bool) -> str:
    """As a terminal takes it; without colours where there is none."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=MAX_COLUMNS, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    return file.getvalue().rstrip("\n")


# The table.


@dataclass(frozen=True)
class _Column:
    name: str
    cells: Sequence[str]
    styles: Sequence[str]
    is_left: bool = False

    @property
    def width(self) -> int:
        return max([len(self.name), *map(len, self.cells)])

    def text(self, row: int, width: int) -> Text:
        cell = self.cells[row]
        return Text(f"{cell:<{width}}" if self.is_left else f"{cell:>{width}}", self.styles[row])


def _table(
    status: Status, shown: Sequence[Verdict], view: View, width: int, members: Members
) -> tuple[list[Text], bool]:
    """The lines, and whether the groups' offsets are among the columns."""
    if not shown:
        return [], False
    partitions = {each.key: each for each in status.snapshot.partitions}
    rows = [(each, partitions[each.key]) for each in shown]
    columns = _first_columns(rows)
    whom = [_whom(verdict, view, members) for verdict in shown]
    offsets, by_group = _offset_columns(rows), _group_columns(rows, view)
    written = _column("written", [age(each.lag_seconds(status.snapshot.taken_at)) for _, each in rows])
    optional = [written, *offsets[:3], *by_group, *offsets[3:]]
    wanted = min(max(map(len, whom)), MOST_WAITS_FOR_COLUMNS, width - _width(columns) - len(GAP))
    room = width - max(WAITS_FOR_COLUMNS, wanted) - len(GAP) - _width(columns)
    for column in optional:
        needed = column.width + len(GAP)
        if view.is_wide or needed <= room:
            columns.append(column)
            room -= needed
        elif column in by_group:
            break
    has_groups = bool(by_group) and all(each in columns for each in by_group)
    left = MAX_COLUMNS if view.is_wide else max(WAITS_FOR_COLUMNS, width - _width(columns) - len(GAP))
    styles = ["" if verdict.grade is Grade.OK else GRADE_STYLES[verdict.grade] for verdict in shown]
    last = _Column("waits for", [shown_name(each, left) for each in whom], styles, is_left=True)
    columns.append(last)
    widths = [column.width for column in columns]
    header = GAP.join(
        f"{each.name:<{wide}}" if each.is_left else f"{each.name:>{wide}}"
        for each, wide in zip(columns, widths, strict=True)
    )
    lines = [Text(header.rstrip(), "dim")]
    for row in range(len(rows)):
        line = Text(GAP).join([each.text(row, wide) for each, wide in zip(columns, widths, strict=True)])
        line.rstrip()
        lines.append(line)
    return lines, has_groups


_Rows = Sequence[tuple[Verdict, PartitionSnapshot]]


def _column(name: str, cells: Sequence[str], style: str = "") -> _Column:
    return _Column(name, cells, [style] * len(cells))


def _width(columns: Sequence[_Column]) -> int:
    return sum(each.width for each in columns) + len(GAP) * max(0, len(columns) - 1)


def _first_columns(rows: _Rows) -> list[_Column]:
    grades = [verdict.grade for verdict, _ in rows]
    return [
        _column("part", [str(partition.partition) for _, partition in rows]),
        _Column("verdict", [grade.value for grade in grades], [GRADE_STYLES[grade] for grade in grades], is_left=True),
        _column("since", [age(verdict.waiting_seconds) for verdict, _ in rows]),
        _column("waiting", [f"{'' if verdict.is_exact else '~'}{verdict.behind}" for verdict, _ in rows]),
    ]


def _offset_columns(rows: _Rows) -> list[_Column]:
    return [
        _column("follower", [number(each.local_offset, NONE) for _, each in rows]),
        _column("remote", [number(each.remote_offset) for _, each in rows]),
        _column("end", [number(each.high_watermark) for _, each in rows]),
        _column("begin", [number(each.low_watermark) for _, each in rows]),
        _Column("state", [each.state.name for _, each in rows], [""] * len(rows), is_left=True),
    ]


def _group_columns(rows: _Rows, view: View) -> list[_Column]:
    columns = []
    groups = [leader.group for leader in rows[0][1].leaders]
    for place, group in enumerate(groups):
        leaders = [partition.leaders[place] for _, partition in rows]
        cells = [number(leader.published_offset, NONE) for leader in leaders]
        if view.uses_commit_log:
            ages = [age(leader.age_seconds) for leader in leaders]
            wide = max(map(len, ages))
            cells = [f"{cell} {each:>{wide}}" for cell, each in zip(cells, ages, strict=True)]
        if view.uses_commit_log and view.is_wide:
            cells = [
                f"{cell} {number(leader.committed_offset, NONE)}" for cell, leader in zip(cells, leaders, strict=True)
            ]
        columns.append(_column(shown_name(group, max(9, *map(len, cells))), cells))
    return columns


def _whom(verdict: Verdict, view: View, members: Members) -> str:
    if verdict.waits_for is None and verdict.grade is Grade.STALLED:
        return "its offset is gone"
    if verdict.waits_for is None:
        return "" if verdict.grade is Grade.OK else verdict.reason
    if verdict.grade is Grade.UNKNOWN:
        return f"{verdict.group} ({'never reported' if verdict.group_offset is None else 'not believed'})"
    if verdict.waits_for is WaitsFor.FOLLOWER:
        return f"the follower{_member_of(verdict, view, members)}"
    if verdict.group is None:
        return "the source" if verdict.remote_offset is None else "the leaders"
    if verdict.group_offset is not None and verdict.remote_offset is None:
        return f"{verdict.group} (not believed)"
    if verdict.group_offset is None:
        return f"{verdict.group} (no report)"
    return f"{verdict.group}{_member_of(verdict, view, members)}"


def _member_of(verdict: Verdict, view: View, members: Members) -> str:
    """Which of the group's members has the partition, if that is worth saying."""
    group = view.follower_group if verdict.waits_for is WaitsFor.FOLLOWER else verdict.group
    of_group = members.get(group or "")
    if verdict.grade is Grade.OK or of_group is None or isinstance(of_group, str):
        return ""
    if not of_group:
        return " (no members)"
    owners = [each for each in of_group if verdict.partition in each.partitions]
    return f" ({owners[0].client_id}@{owners[0].host})" if owners else " (no member has it)"


# Below the table.


def _details(
    status: Status, shown: Sequence[Verdict], view: View, width: int, members: Members, has_groups: bool
) -> list[Text]:
    partitions = {each.key: each for each in status.snapshot.partitions}
    lines: list[Text] = []
    for verdict in _worst_of_each_cause(shown, view)[:DETAILED_PARTITIONS]:
        partition = partitions[verdict.key]
        style = GRADE_STYLES[verdict.grade]
        said = f"{shown_name(verdict.topic)}[{verdict.partition}] {verdict.grade.value}"
        if verdict.waits_for is None or verdict.grade is Grade.UNKNOWN:
            said += f": {safe(verdict.reason)}" if verdict.reason else ""
        else:
            said += (
                f" for {age(verdict.waiting_seconds)}: {safe(verdict.clause)}{safe(_member_of(verdict, view, members))}"
            )
            said += f". {safe(verdict.reason)}" if verdict.reason else ""
        lines += wrapped(said, width, style)
        if not has_groups:
            ends = f"    {number(partition.low_watermark)} to {number(partition.high_watermark)}; "
            ends += f"follower {number(partition.local_offset, NONE)}, remote {number(partition.remote_offset)}"
            lines += wrapped(ends, width, "dim", indent="    ")
            for leader in partition.leaders:
                lines += wrapped(f"    {_of_leader(leader, view)}", width, "dim", indent="      ")
    return [Text(), *lines] if lines else []


def _worst_of_each_cause(shown: Sequence[Verdict], view: View) -> list[Verdict]:
    """What is worth a sentence: partitions that wait for the same group are one cause, unless they were asked for."""
    if view.partitions:
        return list(shown)
    worst: dict[object, Verdict] = {}
    for verdict in shown:
        if verdict.grade is not Grade.OK:
            # Of a follower that can't start the reason holds the partition's offsets.
            reason = "" if verdict.waits_for is None and verdict.grade is Grade.STALLED else verdict.reason
            worst.setdefault((verdict.grade, verdict.waits_for, verdict.group, reason), verdict)
    return list(worst.values())


def _of_leader(leader: LeaderSnapshot, view: View) -> str:
    said = f"{shown_name(leader.group)}: "
    if not view.uses_commit_log:
        return f"{said}committed {number(leader.published_offset, 'nothing')}"
    said += f"published {number(leader.published_offset, 'nothing')}"
    if leader.age_seconds is not None:
        said += f" {age(leader.age_seconds)} ago"
    if leader.is_rejected:
        said += f", which is {leader.why_rejected}"
    return f"{said}, committed {number(leader.committed_offset, 'nothing')}"


def _is_wanted(verdict: Verdict, view: View) -> bool:
    return (view.partitions is None or verdict.partition in view.partitions) and (
        view.grades is None or verdict.grade in view.grades
    )
