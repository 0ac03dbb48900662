"""What is known of an assigned partition since trust in it began: how far it reaches, and which topic it is of.

Pure, and not thread-safe: `LeaderOffsets` guards every use with its lock.
"""

from __future__ import annotations

from collections.abc import Mapping

from arroyo_sync.core.state import MAX_OFFSET, PartitionCell
from arroyo_sync.kafka.asker import PartitionRange

LOG_END_UNKNOWN = MAX_OFFSET
"""In place of the end of a commit-log partition that couldn't be asked about: all its records count as older."""

NO_LOG_ENDS: Mapping[int, int] = {}


class KnownEnd:
    """How far an assigned partition is known to reach, and what else the brokers told of it.

    It knows two things by itself: `end`, which the processor's thread (by `cell`) and every answer move; and what the
    first answer since trust began said, by which reports from before are judged.
    """

    __slots__ = ("end", "cell", "epoch", "received_before", "cached_before", "is_lowered", "answer", "log_ends")

    def __init__(self, cell: PartitionCell | None = None, *, cached_before: int | None = None, end: int = 0) -> None:
        self.end = end
        self.epoch = 0
        """Dates the beginning of trust: what was published or asked at a lower epoch is older."""
        self.cell = cell
        """Where the gate notes what it received."""
        # What the gate had received, and what the follower's client had cached as the end, when trust began. Either may
        # be of an earlier topic, or of a log that was truncated since; another value is younger.
        self.received_before = None if cell is None else cell.received
        self.cached_before = cached_before
        self.is_lowered = False
        """Whether trust began anew since an answer lowered the end: what the client has cached may be from before."""
        self.answer: PartitionRange | None = None
        """The first answer to a question that was sent since trust began."""
        self.log_ends = NO_LOG_ENDS
        """Where the commit log's partitions ended between the beginning of trust and that question: what lies below
        was written before the answer."""

    @property
    def received(self) -> int | None:
        """What the gate has received in this assignment."""
        return None if self.cell is None else self.cell.received

    def refresh(self) -> None:
        """It reaches at least as far as the gate has received since trust began."""
        received = self.received
        if received is not None and received > self.end and received != self.received_before:
            self.end = received

    def fetched(self, cached_end: int) -> int:
        """How far the follower's client shows it to reach: not at all by the value from before trust began."""
        return 0 if self.is_lowered or cached_end == self.cached_before else cached_end

    def lowered(self, end: int) -> KnownEnd:
        """What is known once trust begins anew, since the partition was truncated."""
        known_end = KnownEnd(self.cell, end=end)
        known_end.is_lowered = True
        return known_end

    def take_first_answer(self, answer: PartitionRange, log_ends: Mapping[int, int]) -> bool:
        """Keep the answer, if it is the first one, or the one before was incomplete. Returns whether it is complete."""
        if self.answer is None or LOG_END_UNKNOWN in self.log_ends.values():
            self.answer, self.log_ends = answer, log_ends
        return LOG_END_UNKNOWN not in self.log_ends.values()

    def is_older_than_answer(self, log_partition: int, log_offset: int) -> bool:
        """Whether a record at this place of the commit log was written before the first answer was asked for.

        A commit-log partition that was added since has only younger ones.
        """
        return log_offset < self.log_ends.get(log_partition, 0)
