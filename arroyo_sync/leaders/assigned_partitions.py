"""The partitions that the follower reads: what is known of each, and what of the published offsets that verifies.

Not thread-safe: `LeaderOffsets` guards every use with its lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from arroyo_sync.core.state import MAX_OFFSET, PartitionKey
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.offset_table import OffsetTable
from arroyo_sync.leaders.published_offset import PublishedOffset
from arroyo_sync.leaders.verification import SUSPECT, UNDATED, VERIFIED, KnownEnd, Reason, TopicId


class Rejection(NamedTuple):
    """A group published an offset that can't be true of the partition."""

    key: PartitionKey
    group: str
    offset: int
    reason: Reason
    end: int
    """How far the partition is known to reach."""


class Truncation(NamedTuple):
    """A partition ends before an offset that it was known to reach."""

    key: PartitionKey
    previous_end: int
    end: int
    read_to: int | None
    """The offset after the last message that the follower has received in this assignment, or where that began. What
    lies below may be gone, also where the partition ends beyond: nobody tells where it was cut, and it has grown since.
    ``None``: the follower has received nothing, and nothing lies below where it begins."""


class Known(NamedTuple):
    """What is known of a partition at some moment."""

    end: int
    """How far it was known to reach, in an earlier assignment at least."""
    received: int | None
    """What the gate has received of it in this assignment."""
    position: int | None
    """Where the follower reads on, or did before it received that."""


class Question(NamedTuple):
    """What was known just before the brokers were asked. The answer judges nothing that is younger."""

    epoch: int
    known: Mapping[PartitionKey, Known]


class PartitionOutcome(NamedTuple):
    """What follows for a partition from what its groups published."""

    remote_offset: int | None
    is_newly_unverified: bool
    """Whether `AssignedPartitions.unverified` has another offset of it."""
    is_rejected: bool
    """Whether an offset is rejected."""


class AssignedPartitions:
    """The known ends of the assigned partitions, which are its keys.

    :param table: what the groups published.
    """

    def __init__(self, table: OffsetTable) -> None:
        self._table = table
        self._topic_ids: dict[str, TopicId] = {}
        self._unverified: dict[PartitionKey, int] = {}
        self._reached: dict[PartitionKey, int] = {}
        """How far each partition was known to reach, also one that was assigned earlier: whatever it is trusted for, if
        it ends before that it was truncated. The first member of a group that notices ends, and the others' partitions
        are assigned anew."""
        self.epoch = 0
        """Grows with every report of an assigned partition and every trust that begins."""
        self.known_ends: dict[PartitionKey, KnownEnd] = {}
        # These follow from the known ends and the table, and are kept to spare a search.
        self.topics: Counter[str] = Counter()
        """How many partitions of each topic there are."""
        self.unverified: Mapping[PartitionKey, int] = MappingProxyType(self._unverified)
        """The partitions with a pending offset: which end would verify one; `MAX_OFFSET`: none would."""
        self.unanswered: set[PartitionKey] = set()
        """The partitions that the brokers haven't answered about since trust began, or not what a report waits for."""
        self.suspect: set[PartitionKey] = set()
        """The partitions with a suspect report."""
        self.rejected: set[PartitionKey] = set()
        """The partitions with a rejected report."""

    def begin_trust(self, key: PartitionKey, known_end: KnownEnd) -> None:
        """Nothing of the partition is verified any more. What was rejected stays so."""
        self.epoch += 1
        known_end.epoch = self.epoch
        if key not in self.known_ends:
            self.topics[key[0]] += 1
        self.known_ends[key] = known_end
        self.unanswered.add(key)
        for _, published_offset in self._table.filled(key):
            published_offset.begin_anew()
            published_offset.judge(known_end, self._topic_ids.get(key[0]))

    def ask_anew(self, key: PartitionKey) -> None:
        """Trust begins anew, though nothing speaks against how far the partition is known to reach."""
        known_end = self.known_ends.get(key)
        if known_end is not None:
            self.begin_trust(key, known_end.without_answer())

    def end_trust(self, key: PartitionKey) -> None:
        """The partition is no longer assigned."""
        self.remember(key)
        if self.known_ends.pop(key, None) is not None:
            self.topics[key[0]] -= 1
        self._unverified.pop(key, None)
        self.unanswered.discard(key)
        self.suspect.discard(key)
        self.rejected.discard(key)
        for _, published_offset in self._table.filled(key):
            published_offset.begin_anew()

    def check(self, key: PartitionKey, published_offset: PublishedOffset) -> None:
        """Another report counts now."""
        known_end = self.known_ends.get(key)
        if known_end is not None:
            self.epoch += 1
            known_end.refresh()  # mostly the follower has received what was published, and nothing needs to be asked
        published_offset.check(known_end, self._topic_ids.get(key[0]), self.epoch)

    def reach(self, key: PartitionKey, end: int) -> bool:
        """The partition is known to reach to ``end``. Returns whether that may have verified something."""
        known_end = self.known_ends.get(key)
        if known_end is None or end <= known_end.end:
            return False
        known_end.end = end
        lowest = self._unverified.get(key)
        if lowest is None or lowest > end:
            return False
        for _, published_offset in self._table.filled(key):
            published_offset.reach(end)
        return True

    def remember(self, key: PartitionKey) -> None:
        """How far the partition is known to reach, for its next assignment."""
        known_end = self.known_ends.get(key)
        if known_end is not None:
            known_end.refresh()
            self._reached[key] = max(known_end.end, self._reached.get(key, 0))

    def known(self, key: PartitionKey) -> Known | None:
        """What is known of the partition now; ``None``: it isn't assigned."""
        known_end = self.known_ends.get(key)
        if known_end is None:
            return None
        self.remember(key)
        return Known(self._reached[key], known_end.received, known_end.position)

    def apply_answer(
        self, key: PartitionKey, answer: PartitionRange, question: Question, log_ends: Mapping[int, int] | None
    ) -> Truncation | None:
        """See `LeaderOffsets.apply_answers`."""
        known_end = self.known_ends.get(key)
        if known_end is None or known_end.epoch > question.epoch or key not in question.known:
            return None
        if answer.end < question.known[key].end:
            return self._lower(key, known_end, answer, question)
        known_end.refresh()
        known_end.end = max(known_end.end, answer.end)
        if log_ends is not None and known_end.take_first_answer(answer, log_ends):
            self.unanswered.discard(key)
        for _, published_offset in self._table.filled(key):
            published_offset.judge(known_end, self._topic_ids.get(key[0]))
            published_offset.reject_unreached(question.epoch)
        return None

    def apply_committed(self, key: PartitionKey, group: str, committed: int | None, question: Question) -> None:
        """See `LeaderOffsets.apply_committed`."""
        known_end = self.known_ends.get(key)
        published_offset = self._table.slot(key, group)
        if known_end is not None and known_end.epoch <= question.epoch and published_offset is not None:
            published_offset.committed = committed
            published_offset.judge(known_end, self._topic_ids.get(key[0]))

    def set_topic_id(self, topic: str, topic_id: TopicId | None) -> list[PartitionKey]:
        """Returns the partitions that are to be judged anew."""
        is_news = topic_id is None or topic_id != self._topic_ids.get(topic)
        if is_news and not self.topics[topic]:  # maybe for long: by now it may be another one of its name
            self._reached = {key: end for key, end in self._reached.items() if key[0] != topic}
        if self._topic_ids.get(topic) == topic_id:
            return []
        if topic_id is None:
            del self._topic_ids[topic]
        else:
            self._topic_ids[topic] = topic_id
        return [key for key in self.known_ends if key[0] == topic]

    def judge(self, key: PartitionKey) -> None:
        """Apply the rules to what is published of the partition by what is known now."""
        known_end = self.known_ends.get(key)
        if known_end is not None:
            for _, published_offset in self._table.filled(key):
                published_offset.judge(known_end, self._topic_ids.get(key[0]))

    def outcome(self, key: PartitionKey) -> PartitionOutcome:
        """What follows for the partition, after anything of it has changed."""
        row = self._table.row(key)
        remote_offset: int | None = MAX_OFFSET if row else None
        lowest: int | None = None
        is_suspect = is_rejected = False
        for each in row:
            if each is None:
                remote_offset = None
                continue
            in_force = each.in_force
            if in_force is None:
                remote_offset = None
            elif remote_offset is not None and in_force < remote_offset:
                remote_offset = in_force
            if each.ruling is VERIFIED:
                continue
            pending = each.lowest_pending
            if pending is None:
                is_rejected = is_rejected or each.is_rejected
                continue
            lowest = pending if lowest is None or pending < lowest else lowest
            is_suspect = is_suspect or each.ruling is SUSPECT
            if each.ruling is UNDATED:
                self.unanswered.add(key)  # the first message is looked up again
        if is_suspect:
            self.suspect.add(key)
        elif self.suspect:
            self.suspect.discard(key)
        if is_rejected:
            self.rejected.add(key)
        elif self.rejected:
            self.rejected.discard(key)
        if lowest is None:
            if self._unverified:
                self._unverified.pop(key, None)
            return PartitionOutcome(remote_offset, False, is_rejected)
        is_newly_unverified = self._unverified.get(key) != lowest
        self._unverified[key] = lowest
        return PartitionOutcome(remote_offset, is_newly_unverified, is_rejected)

    def take_rejections(self, key: PartitionKey) -> list[Rejection]:
        """What of the partition is rejected, each report once."""
        rejections: list[Rejection] = []
        for group, each in self._table.filled(key):
            if each.is_rejected and not each.is_told and each.latest.offset is not None:
                each.is_told = True
                reason = each.ruling.reason or Reason.BEYOND_END
                rejections.append(Rejection(key, group, each.latest.offset, reason, self.known_ends[key].end))
        return rejections

    def _lower(self, key: PartitionKey, known_end: KnownEnd, answer: PartitionRange, question: Question) -> Truncation:
        """The partition was truncated: what lies beyond is rejected, all else is to be verified anew."""
        end = answer.end
        previous_end, received_before, position = question.known[key]
        read_to = received = known_end.received
        if received is None and position is not None and position > answer.begin:
            read_to = position
        truncation = Truncation(key, previous_end, end, read_to)
        for _, published_offset in self._table.filled(key):
            published_offset.reject_beyond(end, question.epoch)
        if received is not None and received != received_before:
            end = max(end, received)
        self._reached[key] = end
        self.begin_trust(key, known_end.lowered(end))
        return truncation
