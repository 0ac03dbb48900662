"""Whether a commit report can be true of the partition: what is known of that (`KnownEnd`), and the rules (`verify`).

    PENDING ──────> VERIFIED    it is of this topic, and the partition reaches that far: it counts for the gate
       │
       └──────────> REJECTED    it can't be true: the group is unknown until it publishes again

A report is of this topic unless something speaks against it: its topic id, or, where it carries none, that it was
written before the first message that is there.

Pure: no question to a broker, no thread, no clock. `LeaderOffsets` guards every use of a `KnownEnd` with its lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from arroyo_sync.core import source
from arroyo_sync.core.state import MAX_OFFSET, PartitionCell
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport

LOG_END_UNKNOWN = MAX_OFFSET
"""In place of the end of a commit-log partition that couldn't be asked about: all its records count as older."""

NO_LOG_ENDS: Mapping[int, int] = {}


class KnownEnd:
    """How far an assigned partition is known to reach, and what else the brokers told of it.

    It knows two things by itself: `end`, which the processor's thread (by `cell`) and every answer move; and what the
    first answer since trust began said, by which reports from before are judged.
    """

    __slots__ = (
        "answer",
        "begins_at",
        "cached_before",
        "cell",
        "end",
        "epoch",
        "is_lowered",
        "log_ends",
        "received_before",
    )

    def __init__(
        self,
        cell: PartitionCell | None = None,
        *,
        cached_before: int | None = None,
        end: int = 0,
        begins_at: int | None = None,
    ) -> None:
        self.end = end
        self.begins_at = begins_at
        """Where the assignment begins; ``None``: that isn't known."""
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

    @property
    def position(self) -> int | None:
        """Where the follower reads on, if the gate has received nothing. It may be asked before there is a gate."""
        local = None if self.cell is None else self.cell.current[1].local
        return self.begins_at if local is None else local

    def refresh(self) -> None:
        """It reaches at least as far as the gate has received since trust began."""
        received = None if self.cell is None else self.cell.received  # called once a report: not by the property
        if received is not None and received > self.end and received != self.received_before:
            self.end = received

    def fetched(self, cached_end: int) -> int:
        """How far the follower's client shows it to reach: not at all by the value from before trust began."""
        return 0 if self.is_lowered or cached_end == self.cached_before else cached_end

    def lowered(self, end: int) -> KnownEnd:
        """What is known once trust begins anew, since the partition was truncated."""
        known_end = KnownEnd(self.cell, end=end, begins_at=self.begins_at)
        known_end.is_lowered = True
        return known_end

    def without_answer(self) -> KnownEnd:
        """What is known once the brokers are to be asked anew."""
        self.refresh()
        known_end = KnownEnd(self.cell, cached_before=self.cached_before, end=self.end, begins_at=self.begins_at)
        known_end.is_lowered = self.is_lowered
        return known_end

    def take_first_answer(self, answer: PartitionRange, log_ends: Mapping[int, int]) -> bool:
        """Keep the answer, if it is the first one, or the one before was incomplete. Returns whether it is complete.

        Of an answer that lacks only the first message no more is replaced: else what is published while look-ups fail
        would count as older time and again. And one that was looked up stays known: else what it has verified would be
        in doubt again.
        """
        before = self.answer
        if before is None:
            self.answer, self.log_ends = answer, log_ends
        elif LOG_END_UNKNOWN in self.log_ends.values():
            is_lost = not answer.is_first_known and before.first_timestamp_ms is not None
            self.answer, self.log_ends = _with_first_of(answer, before) if is_lost else answer, log_ends
        elif not before.is_first_known:
            self.answer = _with_first_of(before, answer)
        return LOG_END_UNKNOWN not in self.log_ends.values()

    def is_older_than_answer(self, log_partition: int, log_offset: int) -> bool:
        """Whether a record at this place of the commit log was written before the first answer was asked for.

        A commit-log partition that was added since has only younger ones.
        """
        return log_offset < self.log_ends.get(log_partition, 0)

    def has_unknown_log_end(self, log_partition: int) -> bool:
        """Whether it isn't known of this partition's records if they are older: all count as older meanwhile."""
        return self.log_ends.get(log_partition) == LOG_END_UNKNOWN


def _with_first_of(answer: PartitionRange, other: PartitionRange) -> PartitionRange:
    return answer._replace(first_timestamp_ms=other.first_timestamp_ms, is_first_known=other.is_first_known)


class Verification(Enum):
    """Whether a published offset counts for the gate."""

    VERIFIED = "verified"
    PENDING = "pending"
    """Not yet: see the `Reason`."""
    REJECTED = "rejected"
    """Never, whatever comes: only another report of the group can count."""


class Reason(Enum):
    """Why a published offset is pending or rejected."""

    UNANSWERED = "the brokers haven't answered yet"
    BEYOND_END = source.BEYOND_END
    EARLIER_TOPIC = source.EARLIER_TOPIC
    BEFORE_FIRST_MESSAGE = "from before its first message, by that one's timestamp"
    """So it may be of an earlier topic, too."""
    FIRST_MESSAGE_UNKNOWN = "maybe from before its first message, which can't be looked up at the moment"


class Ruling(NamedTuple):
    verification: Verification
    reason: Reason | None = None


class TopicId(NamedTuple):
    """The data topic's id, once the brokers were asked for it."""

    value: str | None
    """``None``: they know no ids, or don't tell."""


VERIFIED = Ruling(Verification.VERIFIED)
UNANSWERED = Ruling(Verification.PENDING, Reason.UNANSWERED)
NOT_REACHED = Ruling(Verification.PENDING, Reason.BEYOND_END)
SUSPECT = Ruling(Verification.PENDING, Reason.BEFORE_FIRST_MESSAGE)
UNDATED = Ruling(Verification.PENDING, Reason.FIRST_MESSAGE_UNKNOWN)
OFFSET_BEYOND_END = Ruling(Verification.REJECTED, Reason.BEYOND_END)
OF_EARLIER_TOPIC = Ruling(Verification.REJECTED, Reason.EARLIER_TOPIC)


def verify(
    report: CommitReport, known_end: KnownEnd, topic_id: TopicId | None, *, epoch: int, committed: int | None
) -> Ruling:
    """What the report is worth, by what is known now.

    :param topic_id: ``None``: not asked for yet.
    :param epoch: when the report was taken in, to be held against `KnownEnd.epoch`.
    :param committed: the group's own commit on the brokers, if it was asked for since trust began.
    """
    offset = report.offset
    assert offset is not None, "a group that is unknown has nothing to verify"
    is_of_this_topic = False
    if report.topic_id is not None:
        if topic_id is None:
            return UNANSWERED
        if topic_id.value not in (None, report.topic_id):
            return OF_EARLIER_TOPIC
        is_of_this_topic = topic_id.value is not None
    answer = known_end.answer
    if answer is None:
        return UNANSWERED
    if _is_older(report, known_end, epoch):
        if offset > answer.end:
            # By the same answer, so it doesn't wait until a new topic has outgrown it. Where the commit log's end is
            # unknown it may be younger than the answer, and waits for the next one.
            return UNANSWERED if known_end.has_unknown_log_end(report.log_partition) else OFFSET_BEYOND_END
        is_lifted = is_of_this_topic or (committed is not None and committed >= offset)
        if not is_lifted and _is_suspect(report, answer, offset):
            return SUSPECT if answer.is_first_known else UNDATED
    return VERIFIED if offset <= known_end.end else NOT_REACHED


def _is_older(report: CommitReport, known_end: KnownEnd, epoch: int) -> bool:
    """Whether it was written before the answer was asked for. A group's commit was, if it was taken before trust
    began."""
    if report.log_partition == FROM_BROKER:
        return epoch < known_end.epoch
    return known_end.is_older_than_answer(report.log_partition, report.log_offset)


def _is_suspect(report: CommitReport, answer: PartitionRange, offset: int) -> bool:
    """Whether the partition's beginning speaks against an older report: it tells of messages that weren't there.

    It may, as long as the first message isn't known.
    """
    if offset <= answer.begin:
        return False
    return answer.first_timestamp_ms is None or report.timestamp_ms < answer.first_timestamp_ms
