"""One leader group's offset of one partition: the newest of its commit reports, and whether that is verified.

`arroyo_sync.leaders.verification` has the rules. What follows from a ruling for the gate:

    VERIFIED    the offset is in force
    PENDING     what was verified before stays in force, unless the new offset is lower
    REJECTED    nothing is in force until the group publishes again

Pure, and not thread-safe: `LeaderOffsets` guards every use with its lock.
"""

from __future__ import annotations

from collections.abc import Mapping

from arroyo_sync.core.state import MAX_OFFSET, PartitionKey
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.verification import (
    NOT_REACHED,
    OF_EARLIER_TOPIC,
    OFFSET_BEYOND_END,
    UNANSWERED,
    VERIFIED,
    KnownEnd,
    Ruling,
    TopicId,
    Verification,
    verify,
)


class PublishedOffset:
    """What one group published of one partition."""

    __slots__ = (
        "latest",
        "latest_by_log_partition",
        "read_at_seconds",
        "epoch",
        "ruling",
        "in_force",
        "lowest_unreached",
        "committed",
        "is_told",
        "is_long_suspect",
    )

    def __init__(self, latest: CommitReport, read_at_seconds: float) -> None:
        self.latest = latest
        # The last report of every commit-log partition, once there are two (the log was expanded).
        self.latest_by_log_partition: dict[int, CommitReport] | None = None
        self.read_at_seconds = read_at_seconds
        self.epoch = 0
        """When `latest` was taken in."""
        # From here on: what counts only while the partition is assigned, except that a rejection stays.
        self.ruling = UNANSWERED
        """On `latest`."""
        self.in_force: int | None = None
        """The offset that counts for the gate."""
        self.lowest_unreached: int | None = None
        """While `latest` waits for the partition to be known to reach it: the lowest offset that was published since
        one was verified. It comes into force though newer ones are pending, else a follower that is a little behind
        would wait for the newest for ever."""
        self.committed: int | None = None
        """What the group itself has committed on the brokers, if that was asked since trust began."""
        self.is_told = False
        """Whether the rejection of `latest` was noted for the log."""
        self.is_long_suspect = False
        """Whether `latest` has been suspect for so long that people are to know. Mostly a commit lifts that at once."""

    # Which report counts.

    def update(self, report: CommitReport, now: float) -> None:
        """Take the report in, and choose which one counts: a function of the last one of each commit-log partition.

        Within a commit-log partition the later log offset counts, whichever was read first. Of those, the one with the
        latest timestamp counts, on a tie the lowest offset, and "unknown" is lower than any.
        """
        self.read_at_seconds = now
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

    # Whether it is verified.

    @property
    def is_rejected(self) -> bool:
        return self.ruling is OFFSET_BEYOND_END or self.ruling is OF_EARLIER_TOPIC

    @property
    def is_pending(self) -> bool:
        """Whether an offset waits to be verified."""
        return self.latest.offset is not None and self.ruling.verification is Verification.PENDING

    @property
    def lowest_pending(self) -> int | None:
        """The lowest offset that the partition needs only reach to be verified; `MAX_OFFSET`: pending otherwise."""
        if not self.is_pending:
            return None
        return MAX_OFFSET if self.lowest_unreached is None else self.lowest_unreached

    def check(self, known_end: KnownEnd | None, topic_id: TopicId | None, epoch: int) -> None:
        """`latest` is another report. Without a known end the partition isn't assigned, so nothing is verified."""
        self.epoch = epoch
        self.ruling = UNANSWERED
        self.is_told = self.is_long_suspect = False
        if known_end is None:
            self.in_force = self.lowest_unreached = None
        else:
            self.judge(known_end, topic_id)

    def begin_anew(self) -> None:
        """Trust in the partition begins anew: nothing is verified any more. What was rejected stays so."""
        self.in_force = self.lowest_unreached = self.committed = None
        self.is_long_suspect = False
        if not self.is_rejected:
            self.ruling = UNANSWERED

    def judge(self, known_end: KnownEnd, topic_id: TopicId | None) -> None:
        """Apply the rules to `latest` by what is known now. What was rejected stays so."""
        offset = self.latest.offset
        if offset is None:
            self.in_force = self.lowest_unreached = None
            return
        if self.is_rejected:
            return
        ruling = verify(self.latest, known_end, topic_id, epoch=self.epoch, committed=self.committed)
        self._decide(ruling, offset)
        if ruling is NOT_REACHED:
            self.reach(known_end.end)

    def reach(self, end: int) -> None:
        """The partition is known to reach to ``end``."""
        offset = self.latest.offset
        if self.ruling is not NOT_REACHED or offset is None or self.lowest_unreached is None:
            return
        if offset <= end:
            self._decide(VERIFIED, offset)
        elif self.lowest_unreached <= end:
            self.in_force, self.lowest_unreached = self.lowest_unreached, offset

    def reject_unreached(self, asked: int) -> None:
        """The partition was asked where it ends: what it doesn't reach and isn't younger than the question can't be."""
        offset = self.latest.offset
        if self.ruling is not NOT_REACHED or offset is None:
            return
        if self.epoch <= asked:
            self._decide(OFFSET_BEYOND_END, offset)
        else:
            # The newest offset is younger; the older ones, of which the lowest was one, may not be.
            self.lowest_unreached = offset

    def reject_beyond(self, end: int, asked: int) -> None:
        """The partition was asked where it ends, and was truncated to ``end``."""
        offset = self.latest.offset
        if offset is not None and offset > end and self.epoch <= asked and not self.is_rejected:
            self._decide(OFFSET_BEYOND_END, offset)

    def _decide(self, ruling: Ruling, offset: int) -> None:
        self.ruling = ruling
        if ruling is VERIFIED:
            self.in_force, self.lowest_unreached = offset, None
        elif ruling is OFFSET_BEYOND_END or ruling is OF_EARLIER_TOPIC:
            self.in_force = self.lowest_unreached = None
        else:
            if self.in_force is not None and offset < self.in_force:
                self.in_force = offset
            if ruling is not NOT_REACHED:
                self.lowest_unreached = None
            elif self.lowest_unreached is None or offset < self.lowest_unreached:
                self.lowest_unreached = offset


class PendingReports:
    """Since when something has been pending, with nothing verified in between, in each partition and of each group.

    For one thread.
    """

    def __init__(self) -> None:
        # And what was in force at the last look.
        self._pending: dict[tuple[PartitionKey, str], tuple[float, int | None]] = {}

    def look(self, in_force: Mapping[tuple[PartitionKey, str], int | None], now: float) -> None:
        """This is pending now.

        :param in_force: the offset that counts there meanwhile. It grows where one was verified.
        :param now: seconds.
        """
        before, self._pending = self._pending, {}
        for place, offset in in_force.items():
            since, earlier = before.get(place, (now, offset))
            has_grown = offset is not None and (earlier is None or offset > earlier)
            self._pending[place] = now if has_grown else since, offset

    def partitions(self, now: float, seconds: float) -> set[PartitionKey]:
        """Those in which something has been pending for so long."""
        return {key for (key, _), (since, _) in self._pending.items() if now - since >= seconds}


def _precedence(report: CommitReport) -> tuple[int, float]:
    return report.timestamp_ms, float("inf") if report.offset is None else -report.offset
