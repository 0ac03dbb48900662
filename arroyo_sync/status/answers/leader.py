"""One leader group in one partition, seen from outside: what it has published, and whether the follower believes that.

The rules are the follower's own, `verify`. From outside every report was read before the brokers were asked what is
there of the partition, so all count as older than the answer.

Pure: no question to a broker, no thread, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError

from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.verification import KnownEnd, Reason, TopicId, verify
from arroyo_sync.leaders.verifier import SUSPICION_PATIENCE_SECONDS
from arroyo_sync.observe.snapshot import LeaderSnapshot

SUSPICIONS = frozenset({Reason.BEFORE_FIRST_MESSAGE, Reason.FIRST_MESSAGE_UNKNOWN})
"""They rest on when the first message was written."""


class Known(NamedTuple):
    """What is known of a partition."""

    key: PartitionKey
    range: PartitionRange | KafkaError
    """Without the first message, if nobody looked it up: then an old report is suspect."""
    topic_id: str | KafkaError | None
    """``None``: the brokers know no ids, or don't permit to ask."""
    now: float
    """Unix seconds."""


def known_id(topic_id: str | KafkaError | None) -> str | None:
    """The topic's id, if it was told."""
    return topic_id if isinstance(topic_id, str) else None


def names_topic_id(published: Mapping[str, LeaderOffset]) -> bool:
    """Whether a group's report names the topic's id, by which it is judged."""
    return any(each.offset is not None and each.topic_id is not None for each in published.values())


def leader_snapshot(
    group: str, latest: LeaderOffset | None, commit: int | KafkaError | None, known: Known
) -> LeaderSnapshot:
    """How the group stands there.

    :param latest: ``None``: it has published nothing.
    :param commit: its own, on the brokers.
    """
    committed = None if isinstance(commit, KafkaError) else commit
    if latest is None or latest.offset is None:
        return LeaderSnapshot(group, committed_offset=committed, has_reported=latest is not None)
    reason = _why_not_believed(group, latest, committed, known)
    return LeaderSnapshot(
        group,
        published_offset=latest.offset,
        published_at=latest.published_at,
        age_seconds=_age(latest, known.now),
        committed_offset=committed,
        is_rejected=reason is not None,
        rejected_because=None if reason is None or reason is Reason.BEYOND_END else reason.value,
        has_reported=True,
    )


def needs_first_message(group: str, latest: LeaderOffset, commit: int | KafkaError | None, known: Known) -> bool:
    """Whether it comes down to when the first message was written, if the group is to be believed."""
    return _why_not_believed(group, latest, None if isinstance(commit, KafkaError) else commit, known) in SUSPICIONS


def _why_not_believed(group: str, latest: LeaderOffset, committed: int | None, known: Known) -> Reason | None:
    """``None``: it is believed, or what speaks against it can't be told."""
    if latest.offset is None:
        return None
    report = CommitReport(known.key, group, latest.offset, latest.timestamp_ms, 0, 0, topic_id=latest.topic_id)
    known_end = KnownEnd()
    if isinstance(known.range, PartitionRange):
        known_end = KnownEnd(end=known.range.end)
        known_end.take_first_answer(known.range, {report.log_partition: report.log_offset + 1})
    reason = verify(report, known_end, TopicId(known_id(known.topic_id)), epoch=0, committed=committed).reason
    age = _age(latest, known.now)
    if reason in SUSPICIONS and age is not None and age < SUSPICION_PATIENCE_SECONDS:
        return None  # nor does the follower tell of one so young: mostly the group's commit is on its way
    return None if reason is Reason.UNANSWERED else reason


def _age(latest: LeaderOffset, now: float) -> float | None:
    return None if latest.published_at is None else max(0.0, now - latest.published_at)
