"""Whether a commit report can be true: the rules, case by case."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.verification import (
    LOG_END_UNKNOWN,
    NOT_REACHED,
    OF_EARLIER_TOPIC,
    OFFSET_BEYOND_END,
    SUSPECT,
    UNANSWERED,
    UNDATED,
    VERIFIED,
    KnownEnd,
    Ruling,
    TopicId,
    verify,
)

KEY = ("events", 0)
TRUST_EPOCH = 10
LOG_END = 100
"""The commit log's end, asked after trust began: records below it are older than the answer."""
OLDER, YOUNGER = 99, 100
FIRST_WRITTEN = 5_000
"""When the first message was written, in milliseconds."""


ANSWER = PartitionRange(0, 900, FIRST_WRITTEN)


@dataclass(frozen=True)
class Case:
    expected: Ruling
    offset: int = 423
    log_offset: int = OLDER
    log_partition: int = 0
    timestamp_ms: int = FIRST_WRITTEN
    report_id: str | None = None
    topic_id: TopicId | None = None
    answer: PartitionRange | None = ANSWER
    received: int = 0
    committed: int | None = None
    epoch: int = TRUST_EPOCH + 1
    log_end: int = LOG_END


SAME, OTHER, NO_IDS = TopicId("one"), TopicId("two"), TopicId(None)
EMPTY = PartitionRange(0, 0)
UNDATED_ANSWER = PartitionRange(0, 900, None, is_first_known=False)
"""Where the brokers couldn't look the first message up."""

CASES = {
    # Nothing before the first answer.
    "no answer yet": Case(UNANSWERED, answer=None),
    "no answer yet, though as much was received": Case(UNANSWERED, answer=None, received=900),
    "no answer yet, to a report with the topic's id": Case(
        UNANSWERED, answer=None, report_id="one", topic_id=SAME, received=900
    ),
    # The topic's id.
    "another topic's id": Case(OF_EARLIER_TOPIC, report_id="one", topic_id=OTHER),
    "another topic's id, before any answer": Case(OF_EARLIER_TOPIC, report_id="one", topic_id=OTHER, answer=None),
    "another topic's id, in a report that is younger": Case(
        OF_EARLIER_TOPIC, log_offset=YOUNGER, report_id="one", topic_id=OTHER
    ),
    "another topic's id, though the group has committed as far": Case(
        OF_EARLIER_TOPIC, report_id="one", topic_id=OTHER, committed=423
    ),
    "the topic's own id": Case(VERIFIED, report_id="one", topic_id=SAME),
    "the topic's own id, written before the first message that is there": Case(
        VERIFIED, report_id="one", topic_id=SAME, timestamp_ms=FIRST_WRITTEN - 1
    ),
    "the topic's own id, beyond the answer": Case(
        OFFSET_BEYOND_END, offset=901, report_id="one", topic_id=SAME, received=950
    ),
    "an id, while the topic's isn't asked yet": Case(UNANSWERED, report_id="one"),
    "an id, where the topic's can't be asked": Case(VERIFIED, report_id="one", topic_id=NO_IDS),
    "an id, where the topic's can't be asked, before the first message": Case(
        SUSPECT, report_id="one", topic_id=NO_IDS, timestamp_ms=FIRST_WRITTEN - 1
    ),
    # Older reports without an id.
    "written with the first message": Case(VERIFIED),
    "written before the first message": Case(SUSPECT, timestamp_ms=FIRST_WRITTEN - 1),
    "written before the first message, where the topic has an id": Case(
        SUSPECT, timestamp_ms=FIRST_WRITTEN - 1, topic_id=SAME
    ),
    "without a timestamp": Case(SUSPECT, timestamp_ms=-1),
    "a first message without a timestamp": Case(SUSPECT, answer=PartitionRange(0, 900)),
    "written before the first message, whatever was received": Case(
        SUSPECT, timestamp_ms=FIRST_WRITTEN - 1, received=900
    ),
    "at the log's beginning": Case(
        VERIFIED, timestamp_ms=FIRST_WRITTEN - 1, answer=PartitionRange(423, 900, FIRST_WRITTEN)
    ),
    "above the log's beginning": Case(
        SUSPECT, timestamp_ms=FIRST_WRITTEN - 1, answer=PartitionRange(422, 900, FIRST_WRITTEN)
    ),
    "of a partition whose messages have all expired": Case(
        VERIFIED, timestamp_ms=FIRST_WRITTEN - 1, answer=PartitionRange(423, 423)
    ),
    "of a commit-log partition that couldn't be asked": Case(
        SUSPECT, log_offset=10**9, timestamp_ms=FIRST_WRITTEN - 1, log_end=LOG_END_UNKNOWN
    ),
    "of a commit-log partition that couldn't be asked, beyond the answer": Case(
        UNANSWERED, offset=901, log_offset=10**9, log_end=LOG_END_UNKNOWN
    ),
    "of a commit-log partition that couldn't be asked, beyond the answer, with the topic's own id": Case(
        UNANSWERED, offset=901, log_end=LOG_END_UNKNOWN, report_id="one", topic_id=SAME, received=950
    ),
    "of a commit-log partition that couldn't be asked, with another topic's id": Case(
        OF_EARLIER_TOPIC, log_end=LOG_END_UNKNOWN, report_id="one", topic_id=OTHER
    ),
    "suspect, and the group has committed as far": Case(VERIFIED, timestamp_ms=FIRST_WRITTEN - 1, committed=423),
    "suspect, and the group has committed less": Case(SUSPECT, timestamp_ms=FIRST_WRITTEN - 1, committed=422),
    "beyond the answer": Case(OFFSET_BEYOND_END, offset=901),
    "beyond the answer, though more was received since": Case(OFFSET_BEYOND_END, offset=901, received=950),
    "of a topic that is empty at first, and has outgrown it": Case(OFFSET_BEYOND_END, answer=EMPTY, received=950),
    "beyond the answer, though the group has committed as far": Case(OFFSET_BEYOND_END, offset=901, committed=901),
    # The first message couldn't be looked up.
    "where the first message isn't known": Case(UNDATED, answer=UNDATED_ANSWER),
    "where the first message isn't known, and the group has committed less": Case(
        UNDATED, answer=UNDATED_ANSWER, committed=422
    ),
    "where the first message isn't known, and the group has committed as far": Case(
        VERIFIED, answer=UNDATED_ANSWER, committed=423
    ),
    "where the first message isn't known, with the topic's own id": Case(
        VERIFIED, answer=UNDATED_ANSWER, report_id="one", topic_id=SAME
    ),
    "where the first message isn't known, at the log's beginning": Case(
        VERIFIED, answer=UNDATED_ANSWER._replace(begin=423)
    ),
    "where the first message isn't known, beyond the answer": Case(
        OFFSET_BEYOND_END, offset=901, answer=UNDATED_ANSWER
    ),
    "where the first message isn't known, younger": Case(VERIFIED, log_offset=YOUNGER, answer=UNDATED_ANSWER),
    # Younger ones.
    "younger than the answer": Case(VERIFIED, log_offset=YOUNGER, timestamp_ms=FIRST_WRITTEN - 1),
    "younger, beyond the answer": Case(NOT_REACHED, offset=901, log_offset=YOUNGER),
    "younger, beyond the answer, received since": Case(VERIFIED, offset=901, log_offset=YOUNGER, received=901),
    "of a commit-log partition that was added since": Case(VERIFIED, log_partition=7, timestamp_ms=0),
    # The group's own commit, taken in place of a report.
    "a commit taken since trust began": Case(VERIFIED, log_partition=FROM_BROKER, timestamp_ms=-1),
    "a commit taken since trust began, beyond the answer": Case(
        NOT_REACHED, offset=901, log_partition=FROM_BROKER, timestamp_ms=-1
    ),
    "a commit taken in the epoch in which trust began": Case(
        NOT_REACHED, offset=901, log_partition=FROM_BROKER, timestamp_ms=-1, epoch=TRUST_EPOCH
    ),
    "a commit taken before": Case(SUSPECT, log_partition=FROM_BROKER, timestamp_ms=-1, epoch=TRUST_EPOCH - 1),
    "a commit taken before, asked again": Case(
        VERIFIED, log_partition=FROM_BROKER, timestamp_ms=-1, epoch=TRUST_EPOCH - 1, committed=423
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_report_is_worth_what_the_rules_say(case: Case) -> None:
    """One row a rule."""
    known_end = KnownEnd()
    known_end.epoch = TRUST_EPOCH
    if case.answer is not None:
        known_end.take_first_answer(case.answer, {0: case.log_end})
    known_end.end = max(case.received, 0 if case.answer is None else case.answer.end)
    report = CommitReport(
        KEY, "g", case.offset, case.timestamp_ms, case.log_partition, case.log_offset, None, case.report_id
    )
    ruling = verify(report, known_end, case.topic_id, epoch=case.epoch, committed=case.committed)
    assert ruling is case.expected


def test_the_first_answer_counts_and_no_later_one() -> None:
    """Reports from before are judged by how the partition was then, however much later they are read."""
    known_end = KnownEnd()
    assert known_end.take_first_answer(EMPTY, {0: LOG_END})
    known_end.take_first_answer(PartitionRange(0, 900, FIRST_WRITTEN), {0: 2 * LOG_END})
    assert (known_end.answer, known_end.log_ends) == (EMPTY, {0: LOG_END})


def test_safety_a_first_message_that_is_found_later_dates_the_first_answer() -> None:
    """Which reports are older, and how far the partition reached, is as the first answer said: else each look-up that
    fails would make older ones of all that was published meanwhile."""
    known_end = KnownEnd()
    assert known_end.take_first_answer(UNDATED_ANSWER, {0: LOG_END})
    known_end.take_first_answer(UNDATED_ANSWER._replace(end=950), {0: 2 * LOG_END})
    assert (known_end.answer, known_end.log_ends) == (UNDATED_ANSWER, {0: LOG_END})
    known_end.take_first_answer(PartitionRange(5, 999, FIRST_WRITTEN), {0: 3 * LOG_END})
    assert (known_end.answer, known_end.log_ends) == (PartitionRange(0, 900, FIRST_WRITTEN), {0: LOG_END})


def test_an_answer_counts_until_all_of_the_commit_log_was_asked_about() -> None:
    """Else the reports of a log partition whose broker was away would count as older for ever."""
    known_end = KnownEnd()
    assert not known_end.take_first_answer(EMPTY, {0: LOG_END, 1: LOG_END_UNKNOWN})
    assert known_end.is_older_than_answer(1, 10**9)
    assert known_end.take_first_answer(PartitionRange(0, 900, FIRST_WRITTEN), {0: LOG_END, 1: 5})
    assert not known_end.is_older_than_answer(1, 5)


@pytest.mark.parametrize(
    ("first", "counts"),
    [
        pytest.param(PartitionRange(0, 900, FIRST_WRITTEN), PartitionRange(0, 950, FIRST_WRITTEN), id="of a message"),
        pytest.param(EMPTY, UNDATED_ANSWER._replace(end=950), id="of an empty partition"),
    ],
)
def test_a_first_message_stays_known_where_all_else_is_asked_again(
    first: PartitionRange, counts: PartitionRange
) -> None:
    """Else what it has verified would be in doubt again. But that there was none says nothing of one that has come."""
    known_end = KnownEnd()
    known_end.take_first_answer(first, {0: LOG_END_UNKNOWN})
    assert known_end.take_first_answer(UNDATED_ANSWER._replace(end=950), {0: LOG_END})
    assert (known_end.answer, known_end.log_ends) == (counts, {0: LOG_END})
