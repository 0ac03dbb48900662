"""One leader group's offset of one partition: what it published, and how much of that is proven to exist.

    heard  ──check──>  proven    it lies within the partition, as far as that is known to reach: in force
              │
              └─────>  in doubt  it lies beyond: the offset proven before stays in force
                         ├──prove──>   proven
                         └──refute──>  refuted: none is in force until the group publishes again

Pure, and not thread-safe: `LeaderOffsets` guards every use with its lock.
"""

from __future__ import annotations

from arroyo_sync.core.state import PartitionCell
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport


class KnownEnd:
    """How far an assigned partition is known to reach, since it was assigned."""

    __slots__ = ("end", "cell", "epoch", "cached_end")

    def __init__(self, epoch: int, cached_end: int | None) -> None:
        self.end = 0
        # Where the gate notes what it received.
        self.cell: PartitionCell | None = None
        self.epoch = epoch
        # What the follower's client had cached when the partition was assigned. It may be of an earlier topic of the
        # same name; another value was fetched since.
        self.cached_end = cached_end

    def refresh(self) -> None:
        """It reaches at least as far as the gate has received."""
        received = None if self.cell is None else self.cell.received
        if received is not None and received > self.end:
            self.end = received


class PublishedOffset:
    """What one group published of one partition."""

    __slots__ = ("latest", "latest_by_log_partition", "heard_at_seconds", "verified", "pending", "epoch", "rejected")

    def __init__(self, latest: CommitReport, heard_at_seconds: float) -> None:
        self.latest = latest
        # The last report of every commit-log partition, once there are two (the log was expanded).
        self.latest_by_log_partition: dict[int, CommitReport] | None = None
        self.heard_at_seconds = heard_at_seconds
        # These count only while the partition is assigned. `doubted` is the lowest offset that was published since one
        # was proven: once it is proven it comes into force, though newer ones are in doubt. `number` dates the newest.
        self.verified: int | None = None
        self.pending: int | None = None
        self.epoch = 0
        self.rejected = False

    def update(self, report: CommitReport, now: float) -> None:
        """Take the report in, and choose which one counts: a function of the last one of each commit-log partition.

        Within a commit-log partition the later log offset counts, whichever was read first. Of those, the one with the
        latest timestamp counts, on a tie the lowest offset, and "unknown" is lower than any.
        """
        self.heard_at_seconds = now
        if self.latest_by_log_partition is None:
            if self.latest.log_partition in (report.log_partition, FROM_BROKER):
                self.latest = report if report.log_offset >= self.latest.log_offset else self.latest
                return
            self.latest_by_log_partition = {self.latest.log_partition: self.latest}
        previous = self.latest_by_log_partition.get(report.log_partition)
        if previous is not None and report.log_offset < previous.log_offset:
            return
        self.latest_by_log_partition[report.log_partition] = report
        self.latest = max(self.latest_by_log_partition.values(), key=_precedence)

    def forget(self, log_partition: int) -> bool:
        """Drop what that commit-log partition said. Returns whether nothing is left."""
        if self.latest_by_log_partition is None:
            return self.latest.log_partition == log_partition
        self.latest_by_log_partition.pop(log_partition, None)
        if self.latest_by_log_partition:
            self.latest = max(self.latest_by_log_partition.values(), key=_precedence)
        return not self.latest_by_log_partition

    def check(self, known_end: KnownEnd | None, epoch: int) -> None:
        """Begin to check the newest report; ``number`` dates the doubt. No trust: the partition isn't assigned."""
        self.rejected = False
        offset = self.latest.offset
        if known_end is None or offset is None:
            self.verified = self.pending = None
        elif offset <= known_end.end:
            self.verified, self.pending = offset, None
        else:
            self.epoch = epoch
            self.pending = offset if self.pending is None else min(offset, self.pending)

    def uncheck(self) -> None:
        """Nothing is proven any more. What was refuted stays so."""
        self.verified = self.pending = None

    def verify(self, end: int) -> None:
        """The partition reaches to ``end``."""
        if self.pending is None or self.latest.offset is None or self.pending > end:
            return
        if self.latest.offset <= end:
            self.verified, self.pending = self.latest.offset, None
        else:
            self.verified, self.pending = self.pending, self.latest.offset

    def reject(self, asked: int) -> int | None:
        """All that is in doubt and not younger than ``asked`` is impossible.

        :returns: the newest offset, if it is refuted.
        """
        if self.pending is None or self.latest.offset is None:
            return None
        if self.epoch > asked:
            # The newest offset is younger than the answer; the older ones, of which `doubted` was one, may be refuted.
            self.pending = self.latest.offset
            return None
        self.verified = self.pending = None
        self.rejected = True
        return self.latest.offset

    def in_force(self, is_assigned: bool) -> int | None:
        """The offset that counts for the gate."""
        if self.rejected:
            return None
        return self.verified if is_assigned else self.latest.offset


def _precedence(report: CommitReport) -> tuple[int, float]:
    return report.timestamp_ms, float("inf") if report.offset is None else -report.offset
