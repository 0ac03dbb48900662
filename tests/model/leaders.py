"""The published offsets of the leader groups, explored: `LeaderOffsets` against an obvious reference of its guarantees.

One partition, two groups, a commit log of two partitions (so that an older record may be read after a newer one), a
data topic that grows, that is truncated, and that is deleted and created anew while the partition isn't assigned, and
brokers of which not all answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from arroyo_sync.core.state import MAX_OFFSET, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.assigned_partitions import Question
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.published_offset import PublishedOffset
from arroyo_sync.leaders.verification import LOG_END_UNKNOWN
from tests.model.judge import Violation
from tests.model.search import NamedAction, NamedActions

KEY = ("events", 0)
GROUPS = ("a", "b")


class Record(NamedTuple):
    """One record of the commit log."""

    timestamp: int
    offset: int | None
    moment: int = 0
    """When it was read; of a record of the commit log also where it lies."""


Part = Literal["partition", "commit log", "a commit log partition", "first message"]
"""What an answer lacks: the partition itself, where the commit log ends (all of it, or the partitions whose brokers are
away), or the first message."""


class Answer(NamedTuple):
    """The reference: the first answer since trust began."""

    end: int
    first_timestamp: int | None
    """``None``: nobody says."""
    log_end: float
    """Records read before this moment are older than the answer. Infinite: nobody says where the commit log ends."""


@dataclass
class Group:
    """The reference: what one group published."""

    last: dict[int, Record] = field(default_factory=dict)
    """The last record of each partition of the commit log."""
    in_force: int | None = None
    """While the partition is assigned: the offset that counts."""
    doubts: list[int] = field(default_factory=list)
    """While it is assigned: what was published since, and is only not known to be reached."""
    waits: bool = False
    """Whether the newest offset waits for something else: the first answer, or the group's own commit."""
    committed: int | None = None
    is_refuted: bool = False
    is_younger: bool = False
    """Whether the newest offset was published after the question that is under way was asked."""

    @property
    def newest(self) -> Record | None:
        return max(self.last.values(), key=self._rank, default=None)

    @property
    def offset(self) -> int | None:
        return None if self.newest is None else self.newest.offset

    @staticmethod
    def _rank(record: Record) -> tuple[int, float]:
        """The latest timestamp; on a tie the lowest offset; "unknown" is lower than any."""
        return record.timestamp, 1 if record.offset is None else -record.offset

    def reached(self, reach: int) -> None:
        """The lowest of the doubted offsets comes into force once it is reached; the newest, if that is."""
        if self.offset is None or not any(each <= reach for each in self.doubts):
            return
        if self.offset <= reach:
            self.in_force, self.doubts = self.offset, []
        else:
            self.in_force, self.doubts = min(self.doubts), [self.offset]

    def forget_trust(self) -> None:
        self.in_force, self.doubts, self.waits, self.committed = None, [], False, None


class World:
    """The reference and the real thing, side by side."""

    def __init__(self, first_timestamp: int = 1) -> None:
        self.manager = SynchronizedPartitionStateManager()
        self.real = LeaderOffsets(GROUPS)
        self.real.attach(self.manager)
        self.real.enable()
        self.is_open = True
        self.groups = {name: Group() for name in GROUPS}
        self.first_timestamp = first_timestamp
        """When the first message of the data topic was written."""
        self.moment = 0
        self.end = 1
        """Where the partition truly ends."""
        self.shown_end = 1
        """The same, or from before a truncation that no answer has told of."""
        self.cached = 0
        """Where the follower's client last saw it end; an earlier topic's, until it fetches."""
        self.is_assigned = False
        self.trusted_since = 0
        self.has_reached = 0
        """How far it was known to reach, in an earlier assignment at least."""
        self.answer_before: Answer | None = None
        """The first answer since trust began."""
        self.reach = 0
        self.received = 0
        """The offset after the last message that the follower received."""
        self.cached_before: int | None = None
        """What the client had cached at the assignment; -1: whatever it has cached counts for nothing."""
        self.question: tuple[Question, int, int, int] | None = None
        """The one under way: the real one; when it was asked; how far was known, and what was received by then."""
        self.violations: list[Violation] = []

    # Actions.

    def publish(self, name: str, log_partition: int, record: Record) -> None:
        self.moment += 1
        report = CommitReport(KEY, name, record.offset, record.timestamp, log_partition, self.moment)
        self.real.apply([report], 0.0)
        group = self.groups[name]
        before = group.newest
        group.last.pop(FROM_BROKER, None)
        group.last[log_partition] = Record(record.timestamp, record.offset, self.moment)
        if group.newest is not before:
            self._judge_anew(group)

    def seed_from_committed(self, name: str, offset: int) -> None:
        self.moment += 1
        self.real.seed_from_committed([(KEY, name, offset)], 0.0)
        group = self.groups[name]
        if not group.last:
            group.last[FROM_BROKER] = Record(-1, offset, self.moment)
            self._judge_anew(group)

    def forget_log_partition(self, log_partition: int) -> None:
        self.real.forget_log_partition(log_partition)
        for group in self.groups.values():
            before = group.newest
            group.last.pop(log_partition, None)
            if group.newest is not before:
                self._judge_anew(group)

    def assign(self) -> None:
        self.moment += 1
        self._remember()
        self.real.assign({KEY: self.cached})
        self.is_assigned, self.received = True, 0
        self._begin_trust(0, self.cached)

    def revoke(self) -> None:
        self._remember()
        self.real.revoke([KEY])
        self.is_assigned = False
        for group in self.groups.values():
            group.forget_trust()

    def receive(self) -> None:
        """One more message, as the gate notes it: first its cell, then, if that verifies something, the source."""
        self.received += 1
        self.manager.cell(*KEY).received = self.received
        if self.real.unverified.get(KEY, self.received + 1) <= self.received:
            self.real.received(KEY, self.received)
        self._reached(self.received)

    def grow(self) -> None:
        self.end += 1
        self.shown_end = max(self.end, self.shown_end)

    def truncate(self) -> None:
        self.end -= 1

    def fetch(self) -> None:
        """The follower's client learns the true end, and the source looks at it."""
        self.cached = self.end
        self.look_at_cache()

    def look_at_cache(self) -> None:
        self.real.cached({KEY: self.cached})
        if self.cached_before not in (self.cached, -1):
            self._reached(self.cached)

    def ask(self) -> None:
        self._remember()
        self.question = self.real.begin_question([KEY]), self.moment, self.has_reached, self.received
        for group in self.groups.values():
            group.is_younger = False

    def answer(self, lacks: Part | None = None) -> None:
        assert self.question is not None
        (question, asked, known, received), self.question = self.question, None
        log_end = LOG_END_UNKNOWN if lacks == "a commit log partition" else asked + 1
        log_ends = None if lacks == "commit log" else dict.fromkeys((0, 1), log_end)
        first = None if lacks == "first message" else self.first_timestamp
        answer = PartitionRange(0, self.end, first, is_first_known=first is not None)
        self.real.apply_answers({} if lacks == "partition" else {KEY: answer}, question, log_ends)
        if lacks == "partition":
            return
        self.shown_end = max(self.end, self.received if self.received != received else 0)
        if not self.is_assigned or asked < self.trusted_since:
            return
        if self.end < known:
            for group in self.groups.values():
                if not group.is_younger and group.offset is not None and group.offset > self.end:
                    group.is_refuted = True
            self.moment += 1
            self.has_reached = self.shown_end
            self._begin_trust(self.has_reached, -1)
            return
        if log_ends is not None:
            self._take_first(Answer(self.end, first, math.inf if log_end == LOG_END_UNKNOWN else log_end))
        self._reached(self.end)
        for group in self.groups.values():
            if group.waits:
                self._judge(group)
            if group.doubts and group.offset is not None:
                if group.is_younger:
                    group.doubts = [group.offset]
                else:
                    group.in_force, group.doubts, group.is_refuted = None, [], True

    def commit(self, name: str, offset: int) -> None:
        """The group's own commit on the brokers is asked for, and told."""
        self.real.apply_committed(name, {KEY: offset}, self.real.begin_question([KEY]))
        group = self.groups[name]
        if self.is_assigned and group.last:
            group.committed = offset
            if group.waits and not group.is_refuted:
                self._judge(group)

    def recreate(self) -> None:
        self.end = self.shown_end = 0

    def shut(self) -> None:
        self.real.disable()
        self.is_open = False

    def open(self) -> None:
        self.real.enable()
        self.is_open = True

    def forget(self) -> None:
        self.real.forget([KEY])
        self.groups = {name: Group() for name in GROUPS}

    # The rules.

    def _remember(self) -> None:
        if self.is_assigned:
            self.has_reached = max(self.has_reached, self.reach)

    def _begin_trust(self, reach: int, cached_before: int) -> None:
        self.reach, self.cached_before = reach, cached_before
        self.trusted_since, self.answer_before = self.moment, None
        for group in self.groups.values():
            group.forget_trust()
            if not group.is_refuted:
                self._judge(group)

    def _take_first(self, answer: Answer) -> None:
        """The first one counts, and of later ones what it lacks."""
        before = self.answer_before
        if before is None:
            self.answer_before = answer
            return
        kept, other = (answer, before) if math.isinf(before.log_end) else (before, answer)
        self.answer_before = kept._replace(first_timestamp=kept.first_timestamp or other.first_timestamp)

    def _judge_anew(self, group: Group) -> None:
        """The newest offset is another one."""
        group.is_refuted, group.is_younger = False, True
        if self.is_assigned:
            self._judge(group)

    def _judge(self, group: Group) -> None:
        group.waits = False
        if group.newest is None or group.offset is None:
            group.in_force, group.doubts = None, []
            return
        answer = self.answer_before
        if answer is None or self._is_suspect(group, answer) or self._may_be_younger(group, answer):
            group.waits, group.doubts = True, []
            if group.in_force is not None:
                group.in_force = min(group.in_force, group.offset)
        elif self._is_beyond(group, answer):
            group.in_force, group.doubts, group.is_refuted = None, [], True
        elif group.offset <= self.reach:
            group.in_force, group.doubts = group.offset, []
        else:
            group.doubts.append(group.offset)
            group.reached(self.reach)

    def _is_older(self, record: Record, answer: Answer) -> bool:
        return record.moment < (self.trusted_since if record.timestamp < 0 else answer.log_end)

    def _is_beyond(self, group: Group, answer: Answer) -> bool:
        """An older report of an offset that wasn't reached."""
        assert group.newest is not None
        assert group.offset is not None
        return self._is_older(group.newest, answer) and group.offset > answer.end

    def _may_be_younger(self, group: Group, answer: Answer) -> bool:
        """One that only counts as older, since nobody says where the commit log ends."""
        assert group.newest is not None
        return self._is_beyond(group, answer) and math.isinf(answer.log_end) and group.newest.timestamp >= 0

    def _is_suspect(self, group: Group, answer: Answer) -> bool:
        """An older report of messages that weren't there: the group's own commit would show that they were."""
        assert group.newest is not None
        assert group.offset is not None
        return (
            self._is_older(group.newest, answer)
            and 0 < group.offset <= answer.end
            and (answer.first_timestamp is None or group.newest.timestamp < answer.first_timestamp)
            and (group.committed is None or group.committed < group.offset)
        )

    def _reached(self, offset: int) -> None:
        if self.is_assigned and offset > self.reach:
            self.reach = offset
            for group in self.groups.values():
                group.reached(offset)

    # Judging.

    def check(self) -> None:
        offsets = [group.offset for group in self.groups.values()]
        known = [offset for offset in offsets if offset is not None]
        if (KEY in self.manager.partitions) > self.is_assigned:
            self.violations.append(Violation("State", "the partition isn't assigned, and is in the manager"))
        remote = self.manager.cell(*KEY).remote
        if remote is not None and (len(known) < len(offsets) or remote > min(known)):
            self.violations.append(Violation("Safety", f"the remote offset is {remote}, published are {offsets}"))
        if remote is not None and remote > self.shown_end:
            self.violations.append(
                Violation("Safety", f"the remote offset is {remote}, the partition ends at {self.end}")
            )
        if remote != self._expected():
            self.violations.append(Violation("State", f"the remote offset is {remote}, not {self._expected()}"))
        doubts = [each for group in self.groups.values() for each in group.doubts]
        if any(group.waits and not group.is_refuted for group in self.groups.values()):
            doubts.append(MAX_OFFSET)
        if self.real.unverified.get(KEY) != min(doubts, default=None):
            self.violations.append(Violation("Progress", f"in doubt is {dict(self.real.unverified)}, not {doubts}"))
        if self._must_ask() and self.real.unanswered() != [KEY]:
            self.violations.append(Violation("Progress", "the brokers aren't asked again for what they didn't answer"))

    def _must_ask(self) -> bool:
        """Whether the first answer is missing, or of it what something waits for."""
        if not self.is_assigned or not self.is_open:
            return False
        answer = self.answer_before
        if answer is None or math.isinf(answer.log_end):
            return True
        return answer.first_timestamp is None and any(
            group.waits and not group.is_refuted and self._is_suspect(group, answer) for group in self.groups.values()
        )

    def _expected(self) -> int | None:
        in_force = []
        for group in self.groups.values():
            offset = group.in_force
            if offset is None or group.is_refuted or not self.is_open or not self.is_assigned:
                return None
            in_force.append(offset)
        return min(in_force)

    def fingerprint(self) -> int:
        question, asked, known, received = self.question or (Question(0, {}), 0, 0, 0)
        known_end = self.real._assigned.known_ends.get(KEY)
        slots = self.real._table.row(KEY) or [None] * len(GROUPS)
        answer = self.answer_before
        each = sorted(
            hash(
                (
                    tuple(sorted(hash((key, *record[:2])) for key, record in group.last.items())),
                    group.in_force,
                    tuple(group.doubts),
                    (group.waits, group.committed, group.is_refuted, group.is_younger),
                    tuple(
                        sorted(
                            hash((key, answer and self._is_older(record, answer), record.moment < self.trusted_since))
                            for key, record in group.last.items()
                        )
                    ),
                    _of_slot(slot, question.epoch),
                )
            )
            for group, slot in zip(self.groups.values(), slots, strict=True)
        )
        cell = self.manager._cells.get(KEY)
        return hash(
            (
                tuple(each),
                (self.end, self.shown_end, self.cached, self.is_assigned, self.reach, self.received, self.is_open),
                (self.has_reached, self.real._assigned._reached.get(KEY, 0)),
                (self.cached_before, self.question is None, asked < self.trusted_since, known, received),
                answer and (answer.end, answer.first_timestamp, math.isinf(answer.log_end)),
                (self._must_ask(), KEY in self.real._assigned.unanswered),
                cell and (cell.remote, cell.received, cell.current),
                known_end
                and (
                    (known_end.end, known_end.cached_before, known_end.received_before, known_end.is_lowered),
                    (known_end.answer, known_end.epoch > question.epoch),
                    LOG_END_UNKNOWN in known_end.log_ends.values(),
                ),
            )
        )


def _of_slot(slot: PublishedOffset | None, question: int) -> object:
    if slot is None:
        return None
    log_partitions = None if slot.latest_by_log_partition is None else tuple(sorted(slot.latest_by_log_partition))
    decided = slot.ruling, slot.in_force, slot.lowest_unreached, slot.committed
    return slot.latest[2:4], log_partitions, hash(decided), slot.epoch > question


@dataclass(frozen=True)
class Setup:
    records: tuple[Record, ...]
    """What leaders may publish. The partition ends at 1, and at 2 when it has grown: 3 is impossible."""
    log_partitions: tuple[int, ...] = (0,)
    prefix: tuple[NamedAction, ...] = ()
    """What has happened before."""
    left_out: frozenset[str] = frozenset()
    """Actions that have nothing to do with what is explored."""
    first_timestamp: int = 1
    """When the data topic's first message was written: records of lower timestamps are suspect."""
    parts: tuple[Part, ...] = ()
    """What an answer may lack."""


class Plan(NamedTuple):
    setup: Setup
    depth: int
    """How deep the test run explores it."""


READING: tuple[NamedAction, ...] = (("grow", ()), ("assign", ()), ("ask", ()), ("answer", ()))
"""The partition is assigned, and the brokers have answered that it ends at 2."""
RARE = frozenset({"seed_from_committed", "recreate", "fetch", "look_at_cache", "shut", "forget", "commit", "truncate"})

PLANS: Mapping[str, Plan] = {
    "published offsets": Plan(
        Setup(tuple(Record(1, offset) for offset in (None, 1, 2, 3)), left_out=frozenset({"commit", "truncate"})), 4
    ),
    "records in two partitions of the commit log": Plan(
        Setup((Record(1, 1), Record(1, 2), Record(2, 1), Record(2, 2), Record(2, None)), (0, 1), READING, RARE), 3
    ),
    "a log that is truncated": Plan(
        Setup((Record(1, 1), Record(1, 2)), prefix=READING, left_out=RARE - {"truncate", "fetch"}), 4
    ),
    "reports that are older than the topic": Plan(
        Setup((Record(1, 1), Record(1, 2), Record(2, 2)), left_out=RARE - {"commit", "recreate"}, first_timestamp=2), 4
    ),
    "answers that lack something": Plan(
        Setup(
            (Record(1, 1), Record(2, 2)),
            prefix=(("grow", ()), ("assign", ())),
            left_out=RARE - {"truncate"},
            first_timestamp=2,
            parts=get_args(Part),
        ),
        5,
    ),
}


class Explorer(NamedActions[World]):
    """Explores what the leaders may publish, and what may be learnt of the partition's end."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.prefix, setup.left_out)
        self.setup = setup

    def _make(self) -> World:
        return World(self.setup.first_timestamp)

    def _actions(self, world: World) -> Iterator[NamedAction]:
        for name, group in world.groups.items():
            for log_partition in self.setup.log_partitions:
                for record in self.setup.records:
                    yield "publish", (name, log_partition, record)
            if not group.last:
                yield "seed_from_committed", (name, 2)
            yield "commit", (name, 2)
        for log_partition in self.setup.log_partitions:
            yield "forget_log_partition", (log_partition,)
        yield "assign", ()
        if world.is_assigned:
            yield "revoke", ()
            if world.received < world.end:
                yield "receive", ()
            if world.end == 2:
                yield "truncate", ()
        elif world.end:
            yield "recreate", ()
        if world.end < 2:
            yield "grow", ()
        yield "fetch", ()
        yield "look_at_cache", ()
        if world.question is None:
            yield "ask", ()
        else:
            yield "answer", ()
            for part in self.setup.parts:
                yield "answer", (part,)
        yield ("shut", ()) if world.is_open else ("open", ())
        yield "forget", ()
