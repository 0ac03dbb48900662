"""Whether a commit report can be true of the partition as it is now: the rules, as one function without any state.

    PENDING ──────> VERIFIED    it is of this topic, and the partition reaches that far: it counts for the gate
       │
       └──────────> REJECTED    it can't be true: the group is unknown until it publishes again

A report is of this topic unless something speaks against it: its topic id, or, where it carries none, that it was
written before the first message that is there.

Pure: no Kafka, no thread, no clock.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.known_end import KnownEnd


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
    BEYOND_END = "beyond the partition's end"
    EARLIER_TOPIC = "of an earlier topic of the same name"


class Verdict(NamedTuple):
    verification: Verification
    reason: Reason | None = None


class TopicId(NamedTuple):
    """The data topic's id, once the brokers were asked for it."""

    value: str | None
    """``None``: they know no ids, or don't tell."""


VERIFIED = Verdict(Verification.VERIFIED)
UNANSWERED = Verdict(Verification.PENDING, Reason.UNANSWERED)
NOT_REACHED = Verdict(Verification.PENDING, Reason.BEYOND_END)
SUSPECT = Verdict(Verification.PENDING, Reason.EARLIER_TOPIC)
IMPOSSIBLE = Verdict(Verification.REJECTED, Reason.BEYOND_END)
OF_EARLIER_TOPIC = Verdict(Verification.REJECTED, Reason.EARLIER_TOPIC)


def verify(
    report: CommitReport, known_end: KnownEnd, topic_id: TopicId | None, *, epoch: int, committed: int | None
) -> Verdict:
    """What the report is worth, by what is known now.

    :param topic_id: ``None``: not asked for yet.
    :param epoch: when the report was taken in, to be held against `KnownEnd.epoch`.
    :param committed: the group's own commit on the brokers, if it was asked for since trust began.
    """
    offset = report.offset
    assert offset is not None, "a group that is unknown has nothing to verify"
    carries_id = report.topic_id is not None
    if carries_id and topic_id is None:
        return UNANSWERED
    if carries_id and topic_id is not None and topic_id.value not in (None, report.topic_id):
        return OF_EARLIER_TOPIC
    if known_end.answer is None:
        return UNANSWERED
    is_older = _is_older(report, known_end, epoch)
    if is_older and offset > known_end.answer.end:
        return IMPOSSIBLE  # by the same answer, so it doesn't wait until a new topic has outgrown it
    is_of_this_topic = carries_id and topic_id is not None and topic_id.value is not None
    is_lifted = committed is not None and committed >= offset
    if is_older and not is_of_this_topic and not is_lifted and _is_suspect(report, known_end, offset):
        return SUSPECT
    return VERIFIED if offset <= known_end.end else NOT_REACHED


def _is_older(report: CommitReport, known_end: KnownEnd, epoch: int) -> bool:
    """Whether it was written before the answer was asked for. A group's commit was, if it was taken before trust
    began."""
    if report.log_partition == FROM_BROKER:
        return epoch < known_end.epoch
    return known_end.is_older_than_answer(report.log_partition, report.log_offset)


def _is_suspect(report: CommitReport, known_end: KnownEnd, offset: int) -> bool:
    """Whether the partition's beginning speaks against an older report: it tells of messages that weren't there."""
    answer = known_end.answer
    if answer is None or offset <= answer.begin:
        return False
    return answer.first_timestamp_ms is None or report.timestamp_ms < answer.first_timestamp_ms
