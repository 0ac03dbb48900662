"""What a verdict is made of: the grade of a partition, for whom it waits, since when, and how many messages.

Values alone; `evaluation.py` has the rules. Threads: none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.stalls import Stall, WaitsFor, wait_clause


class Grade(Enum):
    """How a partition stands, the worst first."""

    STALLED = "stalled"
    """Nothing moved for `Limits.stalled_after` though messages wait, or the follower can't start."""
    UNKNOWN = "unknown"
    """It can't be told, or what is configured can't be right."""
    WAITING = "waiting"
    """Messages wait, and no progress was seen for a while."""
    OK = "ok"
    """Nothing waits, or it moves."""


_ORDER = {grade: place for place, grade in enumerate(Grade)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One partition's."""

    topic: str
    partition: int
    grade: Grade
    waits_for: WaitsFor | None = None
    """``None``: nothing waits, or it can't be told for whom."""
    group: str | None = None
    """The leader group that it waits for, if it waits for one."""
    group_offset: int | None = None
    """What that group published last, a *next* offset."""
    waiting_seconds: float | None = None
    """For how long no progress was seen, or none can have been made. ``None``: nothing waits."""
    behind: int = 0
    """How many messages wait, as far as is known."""
    is_exact: bool = True
    """Whether so many wait. Else some of these offsets may hold no message."""
    local_offset: int | None = None
    remote_offset: int | None = None
    reason: str = ""
    """Why, in words, where it isn't plain."""

    @property
    def key(self) -> PartitionKey:
        return self.topic, self.partition

    @property
    def stall(self) -> Stall:
        """The same for those who are told of stalls."""
        return Stall(
            self.topic,
            self.partition,
            self.waits_for or WaitsFor.FOLLOWER,
            self.waiting_seconds or 0.0,
            self.local_offset or 0,
            self.remote_offset,
            self.behind,
            self.group,
            self.group_offset,
            self.is_exact,
            self.reason if self.waits_for is None else "",
        )

    @property
    def clause(self) -> str:
        """How many messages wait, and for whom; empty if nothing does."""
        if self.waits_for is None:
            return ""
        return wait_clause(
            self.waits_for, self.behind, self.remote_offset, self.group, self.group_offset, is_exact=self.is_exact
        )


def worst_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """By grade, then by how long it lasts, then by topic and partition."""
    return sorted(verdicts, key=lambda each: (_ORDER[each.grade], -(each.waiting_seconds or 0.0), each.key))


def worst(verdicts: Iterable[Verdict]) -> Grade:
    """The worst grade among them; OK if there are none."""
    return min((each.grade for each in verdicts), key=_ORDER.__getitem__, default=Grade.OK)
