"""What is said of a status above the table: the verdict, each grade, each group and its members; and the words for it.

Threads: none.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

from arroyo_sync.observe.verdict import Grade, Verdict
from arroyo_sync.status.check import Status
from arroyo_sync.status.members import Member, Members

SHOWN_PARTITIONS = 20
"""So many rows, unless all are asked for."""
SHOWN_MEMBERS = 4
NAME_COLUMNS = 60
UNKNOWN = "?"
NONE = "-"
GAP = "  "

GRADE_STYLES = {Grade.STALLED: "red", Grade.UNKNOWN: "magenta", Grade.WAITING: "yellow", Grade.OK: "green"}


@dataclass(frozen=True)
class View:
    """What of it is wanted."""

    follower_group: str
    uses_commit_log: bool = True
    partitions: Collection[int] | None = None
    """``None``: any."""
    grades: Collection[Grade] | None = None
    """``None``: any."""
    max_rows: int | None = SHOWN_PARTITIONS
    """``None``: all."""
    is_wide: bool = False
    """Whether every column is shown, however wide that is."""
    shows_legend: bool = True
    """Whether the columns are explained, if there is room for it."""
    screen_lines: int | None = None
    """How many lines the screen has. ``None``: it is none."""
    notes: Sequence[str] = field(default_factory=tuple)
    """Lines below the summary: rates, and what changed."""
    blind: str | None = None
    """Since when and why nothing can be seen; what is shown is older."""


def summary_lines(status: Status, view: View, width: int, members: Members) -> list[Text]:
    """What is well and what isn't, and of whom."""
    return [*_head(status, view, width), *_grades_and_groups(status, view, width, members)]


def shown_name(name: str, columns: int = NAME_COLUMNS) -> str:
    """A name as a terminal can take it, no longer than that.

    >>> shown_name("a" * 30, 11), shown_name("red\\x1b[31m")
    ('aaaaa…aaaaa', 'red\\\\x1b[31m')
    """
    safe = "".join(each if each.isprintable() and cell_len(each) == 1 else ascii(each)[1:-1] for each in name)
    if len(safe) <= columns:
        return safe
    head = columns // 2
    return f"{safe[:head]}…{safe[len(safe) - (columns - head - 1) :]}"


def age(seconds: float | None) -> str:
    """Two digits or so: ages are for looking at.

    >>> [age(each) for each in (None, 0.04, 4.25, 65.0, 7200.0, 200_000.0)]
    ['-', '0.0 s', '4.2 s', '65 s', '2.0 h', '2.3 d']
    """
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < length * 120:
            return f"{seconds / length:.0f} {unit}" if length < 3600 else f"{seconds / length:.1f} h"
    return f"{seconds / 86_400:.1f} d" if seconds < 86_400_000 else "years"


def rate(per_second: float) -> str:
    """Two digits, or all of those before the point; never a power of ten.

    >>> [rate(each) for each in (0.00004, 0.034, 2.0, 9.96, 12.4, 132.4, 4321.0)]
    ['less than 0.001', '0.034', '2', '10', '12', '132', '4321']
    """
    if per_second < 0.001:
        return "less than 0.001"
    return f"{per_second:.2g}" if per_second < 10 else f"{per_second:.0f}"


def safe(text: str) -> str:
    return shown_name(text, 600)


def wrapped(text: str, width: int, style: str, indent: str = "  ") -> list[Text]:
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True)
    return [Text(line, style) for line in lines]


def number(value: int | None, missing: str = UNKNOWN) -> str:
    return missing if value is None else str(value)


def _head(status: Status, view: View, width: int) -> list[Text]:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(status.snapshot.taken_at))
    topic = status.snapshot.partitions[0].topic if status.snapshot.partitions else ""
    title = f"{shown_name(topic)}, followed by {shown_name(view.follower_group)}"
    lines = wrapped(title, width, "bold", indent="")
    if view.blind is not None:
        lines += wrapped(f"Blind {view.blind}. What follows is of {at}", width, "bold magenta")
    style = GRADE_STYLES[status.grade]
    said = {
        Grade.STALLED: "stalled",
        Grade.UNKNOWN: "can't tell",
        Grade.WAITING: "waiting: no progress was seen for a while",
        Grade.OK: "ok: nothing stands still",
    }[status.grade]
    lines += wrapped(f"{at}  {said}", width, f"bold {style}", indent="")
    for doubt in status.doubts:
        lines += wrapped(f"can't tell: {safe(doubt)}", width, "magenta")
    for note in view.notes:
        lines += wrapped(safe(note), width, "")
    return lines


def _grades_and_groups(status: Status, view: View, width: int, members: Members) -> list[Text]:
    lines: list[Text] = []
    for grade in Grade:
        of_grade = [each for each in status.verdicts if each.grade is grade]
        if not of_grade:
            continue
        said = f"{grade.value}: {_partitions(of_grade)}"
        longest = max((each.waiting_seconds or 0.0 for each in of_grade), default=0.0)
        if grade is not Grade.OK and longest:
            said += f", for up to {age(longest)}"
        behind = sum(each.behind for each in of_grade)
        if behind:
            said += f", {'' if all(each.is_exact for each in of_grade) else '~'}{behind} messages"
        lines += wrapped(said, width, GRADE_STYLES[grade])
    groups = sorted({leader.group for each in status.snapshot.partitions for leader in each.leaders})
    for group in groups:
        lines += wrapped(_of_group(group, status, view, members), width, "")
    follower = members.get(view.follower_group)
    if follower is not None:
        said = f"follower {shown_name(view.follower_group)}: {_said_of_members(follower)}"
        lines += wrapped(said, width, "")
    return lines


def _of_group(group: str, status: Status, view: View, members: Members) -> str:
    leaders = [leader for each in status.snapshot.partitions for leader in each.leaders if leader.group == group]
    reported = [leader for leader in leaders if leader.published_offset is not None]
    said = f"leader {shown_name(group)}: "
    verb = "reported" if view.uses_commit_log else "committed"
    said += f"{verb} {len(reported)} of {len(leaders)} partitions" if reported else f"has {verb} nothing"
    ages = [leader.age_seconds for leader in reported if leader.age_seconds is not None]
    if ages:
        said += f", last {age(min(ages))} ago, the oldest {age(max(ages))}"
    waited_for = [each for each in status.verdicts if each.group == group and each.grade is not Grade.OK]
    if waited_for:
        said += f"; waited for in {_partitions(waited_for)}"
    if group in members:
        said += f"; {_said_of_members(members[group])}"
    return said


def _said_of_members(members: Sequence[Member] | str) -> str:
    if isinstance(members, str):
        return f"its members can't be told: {safe(members)}"
    if not members:
        return "it has no members: stopped, or not a consumer group"
    shown = ", ".join(f"{_member(each)} has {ranges(each.partitions)}" for each in members[:SHOWN_MEMBERS])
    more = f", and {len(members) - SHOWN_MEMBERS} more" if len(members) > SHOWN_MEMBERS else ""
    return f"{len(members)} member{'' if len(members) == 1 else 's'}: {shown}{more}"


def _member(member: Member) -> str:
    return shown_name(f"{member.client_id}@{member.host}", 40)


def _partitions(verdicts: Collection[Verdict]) -> str:
    if len(verdicts) == 1:
        return f"partition {next(iter(verdicts)).partition}"
    return f"{len(verdicts)} partitions ({ranges([each.partition for each in verdicts])})"


def ranges(numbers: Iterable[int], most: int = 6) -> str:
    """Short for many.

    >>> ranges([3, 1, 2, 7]), ranges([]), ranges(range(0, 30, 2))
    ('1-3, 7', 'none', '0, 2, 4, 6, 8, 10, ...')
    """
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    said = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    return ", ".join([*said, *(["..."] if len(ranges) > most else [])]) or "none"
