"""One leader group's offset of one partition: what it published, and how much of that is proven to exist.

    heard  ──check──>  proven    it lies within the partition, as far as that is known to reach: in force
              │
              └─────>  in doubt  it lies beyond: the offset proven before stays in force
                         ├──prove──>   proven
                         └──refute──>  refuted: none is in force until the group publishes again

Pure, and not thread-safe: `LeaderOffsets` guards every use with its lock.
"""

from __future__ import annotations

from typing import NamedTuple

from arroyo_sync.core.state import Partition, PartitionKey

FROM_BROKER = -1
"""In place of a commit-log partition: the offset is the group's commit on the broker, and no record was seen."""


class Statement(NamedTuple):
    """What one record says of one group and partition, and where it stood."""

    offset: int | None
    """The next offset that the group would read; ``None``: unknown again."""
    timestamp_ms: int
    """The broker's timestamp of the record, Unix milliseconds; -1 if it has none."""
    log_partition: int
    log_offset: int
    orig_message_ts: float | None = None
    """When the message before ``offset`` was written, Unix seconds, if the record says so. For metrics alone."""


class Published(NamedTuple):
    """A `Statement` and whom it is about."""

    key: PartitionKey
    group: str
    statement: Statement


class Trust:
    """How far an assigned partition is known to reach, since it was assigned."""

    __slots__ = ("end", "cell", "number", "cached_end")

    def __init__(self, number: int, cached_end: int | None) -> None:
        self.end = 0
        # Where the gate notes what it received.
        self.cell: Partition | None = None
        self.number = number
        # What the follower's client had cached when the partition was assigned. It may be of an earlier topic of the
        # same name; another value was fetched since.
        self.cached_end = cached_end

    def look(self) -> None:
        """It reaches at least as far as the gate has received."""
        received = None if self.cell is None else self.cell.received
        if received is not None and received > self.end:
            self.end = received


class Claim:
    """What one group published of one partition."""

    __slots__ = ("said", "rivals", "heard_at_seconds", "proven", "doubted", "number", "refuted")

    def __init__(self, said: Statement, heard_at_seconds: float) -> None:
        self.said = said
        # The last statement of every commit-log partition, once there are two (the log was expanded).
        self.rivals: dict[int, Statement] | None = None
        self.heard_at_seconds = heard_at_seconds
        # These count only while the partition is assigned. `doubted` is the lowest offset that was published since one
        # was proven: once it is proven it comes into force, though newer ones are in doubt. `number` dates the newest.
        self.proven: int | None = None
        self.doubted: int | None = None
        self.number = 0
        self.refuted = False

    def hear(self, statement: Statement, now: float) -> None:
        """Take the statement in, and choose which one counts: a function of the last one of each commit-log partition.

        The one with the latest timestamp counts, on a tie the lowest offset, and "unknown" is lower than any.
        """
        self.heard_at_seconds = now
        if self.rivals is None and self.said.log_partition in (statement.log_partition, FROM_BROKER):
            self.said = statement
            return
        if self.rivals is None:
            self.rivals = {self.said.log_partition: self.said}
        self.rivals[statement.log_partition] = statement
        self.said = max(self.rivals.values(), key=_precedence)

    def forget(self, log_partition: int) -> bool:
        """Drop what that commit-log partition said. Returns whether nothing is left."""
        if self.rivals is None:
            return self.said.log_partition == log_partition
        self.rivals.pop(log_partition, None)
        if self.rivals:
            self.said = max(self.rivals.values(), key=_precedence)
        return not self.rivals

    def check(self, trust: Trust | None, number: int) -> None:
        """Begin to check the newest statement; ``number`` dates the doubt. No trust: the partition isn't assigned."""
        self.refuted = False
        offset = self.said.offset
        if trust is None or offset is None:
            self.proven = self.doubted = None
        elif offset <= trust.end:
            self.proven, self.doubted = offset, None
        else:
            self.number = number
            self.doubted = offset if self.doubted is None else min(offset, self.doubted)

    def uncheck(self) -> None:
        """Nothing is proven any more. What was refuted stays so."""
        self.proven = self.doubted = None

    def prove(self, end: int) -> None:
        """The partition reaches to ``end``."""
        if self.doubted is None or self.said.offset is None or self.doubted > end:
            return
        if self.said.offset <= end:
            self.proven, self.doubted = self.said.offset, None
        else:
            self.proven, self.doubted = self.doubted, self.said.offset

    def refute(self, asked: int) -> int | None:
        """All that is in doubt and not younger than ``asked`` is impossible.

        :returns: the newest offset, if it is refuted.
        """
        if self.doubted is None or self.said.offset is None:
            return None
        if self.number > asked:
            # The newest offset is younger than the answer; the older ones, of which `doubted` was one, may be refuted.
            self.doubted = self.said.offset
            return None
        self.proven = self.doubted = None
        self.refuted = True
        return self.said.offset

    def in_force(self, is_assigned: bool) -> int | None:
        """The offset that counts for the gate."""
        if self.refuted:
            return None
        return self.proven if is_assigned else self.said.offset


def _precedence(statement: Statement) -> tuple[int, float]:
    return statement.timestamp_ms, float("inf") if statement.offset is None else -statement.offset
