"""What is said of a partition that has stood still for too long. `evaluation.py` has the rules that find it.

Values alone. Threads: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class WaitsFor(Enum):
    """Who must move next."""

    LEADER = "leader"
    """Gated: a leader group must commit, or the source must learn that it did."""
    FOLLOWER = "follower"
    """Slow: messages are released, and the follower doesn't pass them on."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A wait that has lasted too long."""

    topic: str
    partition: int
    waits_for: WaitsFor
    waiting_seconds: float
    """For how long no progress was seen, or none can have been made."""
    local_offset: int
    remote_offset: int | None
    behind: int
    """How many messages wait, as far as is known."""
    group: str | None = None
    """The slowest leader group, if the wait is for one. ``None``: the follower is slow, or the source isn't ready."""
    group_offset: int | None = None
    """What that group published last, a *next* offset. ``None``: nothing."""
    is_exact: bool = True
    """Whether so many messages wait. Else some of the offsets may hold none: markers, aborted or compacted ones."""
    reason: str = ""
    """In place of the usual sentence, where there is more to say."""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.topic}[{self.partition}] {self.reason}"
        where = (
            f"{self.topic}[{self.partition}] has stood still for {self.waiting_seconds:.0f} s at {self.local_offset}"
        )
        return f"{where}: {self.clause}"

    @property
    def clause(self) -> str:
        """How many messages wait, and for whom."""
        return wait_clause(
            self.waits_for, self.behind, self.remote_offset, self.group, self.group_offset, is_exact=self.is_exact
        )


def wait_clause(
    waits_for: WaitsFor,
    behind: int,
    remote_offset: int | None,
    group: str | None,
    group_offset: int | None,
    *,
    is_exact: bool = True,
) -> str:
    """How many messages wait, and for whom."""
    count = f"{'' if is_exact else 'up to '}{behind} message{'' if behind == 1 else 's'}"
    is_or_are, wait = ("is", "waits") if behind == 1 else ("are", "wait")
    if waits_for is WaitsFor.FOLLOWER:
        return f"{count} {is_or_are} released up to {remote_offset}, but the follower doesn't pass them on"
    if group is None and remote_offset is None:
        return f"{count} {wait}, and what the leaders have committed isn't known (yet)"
    if group is None:
        return f"{count} {wait} for the leaders, which are at {remote_offset}"
    if group_offset is None:
        return f"{count} {wait} for group {group!r}, which has published nothing"
    return f"{count} {wait} for group {group!r}, which is at {group_offset}"
