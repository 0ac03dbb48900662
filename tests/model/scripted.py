"""What stands around the gate in the model: a consumer that behaves like Arroyo's, a next step, a source, a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.commit import CommitPolicy, CommitPolicyState
from arroyo.dlq import InvalidMessage
from arroyo.errors import ConsumerError
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.source import HighWatermarks, RemoteOffsetSource
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from tests.model.judge import Judge

TOPIC = Topic("events")
PARTITIONS = tuple(Partition(TOPIC, index) for index in range(16))
SOME_TIME = datetime(2024, 1, 1)

SLICE_SECONDS = 0.005

OnAssign = Callable[[Mapping[Partition, int]], None]
OnRevoke = Callable[[Sequence[Partition]], None]


class Clock:
    """Time that passes only where somebody waits. It stands in for the ``time`` module of Arroyo's processor too."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class CommitAlways(CommitPolicy):
    """Commits what is staged at once. (Arroyo's "every message" doesn't, after a seek back.)"""

    def __init__(self) -> None:
        super().__init__(None, 1)

    def get_state_machine(self) -> CommitPolicyState:
        return _Always(self)


class _Always(CommitPolicyState):
    def should_commit(self, now: float, offsets: Mapping[Partition, int]) -> bool:
        return True


class Brokers:
    """The data topic and the follower group's committed offsets."""

    def __init__(self, partitions: int) -> None:
        self.ends = dict.fromkeys(range(partitions), 0)
        self.committed = dict.fromkeys(range(partitions), 0)


class ScriptedConsumer(Consumer[bytes]):
    """Does in each poll what the script says, and all else as ``arroyo.backends.kafka.KafkaConsumer`` does it.

    Like there: ``tell`` is live, a revoked partition leaves the offsets after ``on_revoke``, an assigned one is in them
    before ``on_assign``, a pause of what isn't assigned is an error, and ``close`` revokes everything.
    """

    def __init__(self, brokers: Brokers, judge: Judge, clock: Clock, *, is_kip848: bool) -> None:
        self._brokers = brokers
        self._judge = judge
        self._clock = clock
        self._KafkaConsumer__is_kip848 = is_kip848
        self.is_kip848 = is_kip848
        self.offsets: dict[Partition, int] = {}
        self.staged: dict[Partition, int] = {}
        self.paused_set: set[Partition] = set()
        self.is_closed = False
        self.is_in_callback = False
        self._on_assign: OnAssign | None = None
        self._on_revoke: OnRevoke | None = None
        self.rebalances: list[tuple[str, frozenset[int]]] = []
        """What the next poll begins with: ``("assign" or "revoke", partitions)``."""
        self.next_message: int | None = None
        """The partition whose next message it then returns."""
        self.states: Mapping[Any, object] = {}

    def poll(self, timeout: float | None = None) -> BrokerValue[bytes] | None:
        if self.is_closed or self.is_in_callback:
            raise ConsumerError("polled while closed or inside a callback")
        states = {index: state for (_, index), state in self.states.items()}
        self._judge.inner_polled(timeout, [each.index for each in self.paused_set], states)
        rebalances, self.rebalances = self.rebalances, []
        for kind, indexes in rebalances:
            self._assign(indexes) if kind == "assign" else self._revoke(indexes)
        index, self.next_message = self.next_message, None
        message = None if index is None else self._read(PARTITIONS[index])
        if message is None and timeout is not None:
            self._clock.now += timeout
        return message

    def _read(self, partition: Partition) -> BrokerValue[bytes] | None:
        offset = self.offsets.get(partition)
        if offset is None or partition in self.paused_set or offset >= self._brokers.ends[partition.index]:
            return None
        self.offsets[partition] = offset + 1
        return BrokerValue(b"", partition, offset, SOME_TIME)

    def _assign(self, indexes: Collection[int]) -> None:
        self._judge.moved(indexes)
        fresh = {PARTITIONS[index]: self._brokers.committed[index] for index in indexes}
        self.offsets.update(fresh)
        self.resume([*fresh])
        self.is_in_callback = True
        try:
            assert self._on_assign is not None
            self._on_assign(fresh)
        finally:
            self.is_in_callback = False

    def _revoke(self, indexes: Collection[int]) -> None:
        self._judge.moved(indexes)
        gone = [PARTITIONS[index] for index in indexes]
        self.is_in_callback = True
        try:
            assert self._on_revoke is not None
            self._on_revoke(gone)
        finally:
            for partition in gone:
                self.staged.pop(partition, None)
                del self.offsets[partition]
                self.paused_set.discard(partition)
            self.is_in_callback = False

    def subscribe(
        self, topics: Sequence[Topic], on_assign: OnAssign | None = None, on_revoke: OnRevoke | None = None
    ) -> None:
        self._on_assign, self._on_revoke = on_assign, on_revoke

    def unsubscribe(self) -> None:
        raise NotImplementedError

    def tell(self) -> Mapping[Partition, int]:
        self._require_open()
        return self.offsets

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self._require_assigned(offsets)
        self.offsets.update(offsets)

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._require_assigned(partitions)
        self.paused_set.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._require_assigned(partitions)
        self.paused_set.difference_update(partitions)

    def paused(self) -> Sequence[Partition]:
        self._require_open()
        return [*self.paused_set]

    def stage_offsets(self, offsets: Mapping[Partition, int]) -> None:
        for partition, offset in offsets.items():
            self._judge.staged(partition.index, offset)
        self.staged.update(offsets)

    def commit_offsets(self) -> Mapping[Partition, int]:
        self._require_assigned(self.staged)
        for partition, offset in self.staged.items():
            self._brokers.committed[partition.index] = offset
        result = dict(self.staged)
        self.staged.clear()
        return result

    def close(self, timeout: float | None = None) -> None:
        if self.offsets:
            self._revoke([each.index for each in self.offsets])
        self.is_closed = True

    @property
    def closed(self) -> bool:
        return self.is_closed

    @property
    def member_id(self) -> str:
        return "member"

    def _require_open(self) -> None:
        if self.is_closed:
            raise RuntimeError("closed")

    def _require_assigned(self, partitions: Collection[Partition]) -> None:
        self._require_open()
        if unknown := set(partitions) - self.offsets.keys():
            raise ConsumerError(f"not assigned: {unknown}")


ANSWERS = ("accept", "slow", "reject", "invalid", "invalid earlier", "invalid in poll", "one a poll")
"""What the next step does: take a message; use up a slice for it; reject it; say that it, or that an earlier one, is
invalid; say so of the oldest in flight, in `poll` or `join`; take one between two polls."""


@dataclass
class Behaviour:
    """What the next step is told to do."""

    answer: str = "accept"
    loses_in_flight: bool = False
    """Whether ``join`` times out, so that what is in flight isn't finished."""
    is_working: bool = False
    """Whether what is in flight is not yet finished."""


class ScriptedStep(ProcessingStrategy[bytes]):
    """The step behind the gate: answers a submit as told, and commits in ``poll`` what it accepted before."""

    def __init__(
        self, commit: Commit, behaviour: Behaviour, judge: Judge, clock: Clock, hook: Callable[[str], None]
    ) -> None:
        self._commit = commit
        self._behaviour = behaviour
        self._judge = judge
        self._clock = clock
        self._hook = hook
        self.in_flight: deque[tuple[Partition, int]] = deque()
        self.last: tuple[Partition, int] | None = None
        """The last one accepted."""
        self.has_room = True
        self.end: list[str] = []

    def submit(self, message: Message[bytes]) -> None:
        assert isinstance(message.value, BrokerValue)
        partition, offset = message.value.partition, message.value.offset
        self._judge.submitted(partition.index, offset)
        answer = self._behaviour.answer
        if answer == "invalid earlier" and self.last is None:
            answer = "accept"
        if answer == "one a poll":
            answer, self.has_room = ("accept" if self.has_room else "reject"), False
        if answer == "reject":
            self._judge.rejected()
            raise MessageRejected
        if answer == "invalid":
            self._behaviour.answer = "accept"
            self._judge.invalid(partition.index, offset)
            raise InvalidMessage(partition, offset)
        if answer == "invalid earlier" and self.last is not None:
            self._behaviour.answer = "accept"
            named, self.last = self.last, None
            if named in self.in_flight:
                self.in_flight.remove(named)
            self._judge.invalid(named[0].index, named[1])
            raise InvalidMessage(*named)
        if answer == "slow":
            self._clock.now += SLICE_SECONDS
            self._judge.slice_ended()
        self._judge.accepted(partition.index, offset)
        self.last = (partition, offset)
        self.in_flight.append(self.last)
        self._hook("step submit")

    def poll(self) -> None:
        self._hook("step poll")
        self.has_room = True
        self._find_invalid()
        if not self._behaviour.is_working:
            self._finish(len(self.in_flight))

    def _find_invalid(self) -> None:
        if self._behaviour.answer == "invalid in poll" and self.in_flight:
            self._behaviour.answer = "accept"
            partition, offset = self.in_flight.popleft()
            self._judge.invalid(partition.index, offset)
            raise InvalidMessage(partition, offset)

    def _finish(self, count: int, force: bool = False) -> None:
        committable: MutableMapping[Partition, int] = {}
        for _ in range(count):
            partition, offset = self.in_flight.popleft()
            self._judge.finished(partition.index, offset)
            committable[partition] = offset + 1
        if committable or force:
            self._commit(committable, force)

    def close(self) -> None:
        self.end.append("close")

    def join(self, timeout: float | None = None) -> None:
        self._find_invalid()
        self.end.append("join")
        if not self._behaviour.loses_in_flight:
            self._finish(len(self.in_flight), force=True)

    def terminate(self) -> None:
        self.end.append("terminate")


class ModelSource(RemoteOffsetSource):
    """A source that hears the leaders directly: the package's `LeaderOffsets` without a commit log around them."""

    def __init__(self, groups: Sequence[str], hook: Callable[[str], None]) -> None:
        self.leaders = LeaderOffsets(groups)
        self._hook = hook
        self._manager: SynchronizedPartitionStateManager | None = None
        self.cause: BaseException | None = None
        self.is_stopped = False
        self._records = 0

    @property
    def unverified(self) -> Mapping[PartitionKey, int]:
        return self.leaders.unverified

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        if self._manager is None:
            self._manager = manager
            self.leaders.attach(manager)
            self.leaders.enable()

    def check(self) -> None:
        self._hook("check")
        if self.cause is not None:
            raise SourceDied("the source has ended") from self.cause

    def note(self, partition: int, group: str, offset: int | None) -> None:
        self._records += 1
        report = CommitReport((TOPIC.name, partition), group, offset, self._records, 0, self._records)
        self.leaders.apply([report], 0.0)

    def judge(self, ends: Mapping[int, int]) -> None:
        """What the brokers answer, to a question about all partitions that was just sent."""
        answers = {(TOPIC.name, index): PartitionRange(0, end) for index, end in ends.items()}
        self.leaders.apply_answers(answers, self.leaders.begin_question(self.leaders.assigned()), {})

    def die(self) -> None:
        self.cause = RuntimeError("died")
        if self._manager is not None:
            self._manager.wake()

    def stop(self, timeout: float) -> None:
        self.is_stopped = True

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        self.leaders.assign(dict.fromkeys(positions))
        # What the first answer says of older reports is explored in `tests.model.leaders`; here there are none.
        for key in positions:
            self.leaders._assigned.known_ends[key].take_first_answer(PartitionRange(0, 0), {})
        self.leaders._for_each(list(positions), self.leaders._assigned.judge)

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        self.leaders.revoke(partitions)

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        self.leaders.received((topic, partition), next_offset)
