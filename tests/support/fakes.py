"""Stand-ins for what lies around the gate: a clock, a step and a consumer, each doing what its script says."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from arroyo.backends.abstract import Consumer
from arroyo.backends.kafka import KafkaPayload
from arroyo.errors import ConsumerError
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic

EVENTS = Topic("events")
"""The data topic of all tests that need no Kafka."""

At = tuple[int, int]
"""A partition's index and an offset: which message it is."""

OnAssign = Callable[[Mapping[Partition, int]], None]
OnRevoke = Callable[[Sequence[Partition]], None]


def partition(index: int) -> Partition:
    return Partition(EVENTS, index)


def broker_value(index: int, offset: int, value: bytes = b"") -> BrokerValue[KafkaPayload]:
    return BrokerValue(KafkaPayload(None, value, []), partition(index), offset, datetime(2024, 1, 2, 3, 4, 5))


def message(index: int, offset: int, value: bytes = b"") -> Message[KafkaPayload]:
    return Message(broker_value(index, offset, value))


def at(message: Message[object]) -> At:
    """Which message of a consumer it is."""
    assert isinstance(message.value, BrokerValue)
    return message.value.partition.index, message.value.offset


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.reads = 0
        self.seconds_a_read = 0.0
        """What passes with each look, so that work takes time."""

    def __call__(self) -> float:
        self.reads += 1
        self.now += self.seconds_a_read
        return self.now


class ScriptedStep(ProcessingStrategy[KafkaPayload]):
    """Takes every message, and commits it if it was given a ``commit``, except where its script says otherwise."""

    def __init__(self, commit: Commit | None = None) -> None:
        self._commit = commit
        self.taken: list[At] = []
        """What was taken, oldest first."""
        self.before_submit: Callable[[At], None] = lambda at: None
        """Called first by `submit`; may raise."""
        self.errors: dict[At, list[Exception]] = {}
        """What `submit` raises for a message, one an attempt, before it takes it."""
        self.room: int | None = None
        """How many messages it takes before it rejects; None: any number."""
        self.room_after_poll: int | None = None
        """What each poll sets `room` to, as a step does that works in the background; None: polls make no room."""
        self.poll_errors: list[Exception] = []
        self.join_errors: list[Exception] = []
        self.calls: list[str] = []
        """Every call but `submit`, in order; polls in a row are one."""
        self.polls = 0
        self.join_timeouts: list[float | None] = []

    def refuse(self, at: At, *errors: Exception) -> None:
        """Raise these out of `submit` for this message, one an attempt."""
        self.errors[at] = list(errors)

    def submit(self, message: Message[KafkaPayload]) -> None:
        assert "close" not in self.calls, "submitted after close"
        which = at(message)
        self.before_submit(which)
        if self.errors.get(which):
            raise self.errors[which].pop(0)
        if self.room is not None:
            if self.room == 0:
                raise MessageRejected
            self.room -= 1
        self.taken.append(which)
        if self._commit is not None:
            self._commit(message.committable)

    def poll(self) -> None:
        assert "close" not in self.calls, "polled after close"
        self.polls += 1
        self._note("poll")
        if self.poll_errors:
            raise self.poll_errors.pop(0)
        if self.room_after_poll is not None:
            self.room = self.room_after_poll

    def close(self) -> None:
        self.calls.append("close")

    def terminate(self) -> None:
        self.calls.append("terminate")

    def join(self, timeout: float | None = None) -> None:
        self.calls.append("join")
        self.join_timeouts.append(timeout)
        if self.join_errors:
            raise self.join_errors.pop(0)
        if self._commit is not None:
            self._commit({}, force=True)

    def _note(self, call: str) -> None:
        if not self.calls or self.calls[-1] != call:
            self.calls.append(call)


class ScriptedConsumer(Consumer[KafkaPayload]):
    """Does what Arroyo's KafkaConsumer does with Kafka, without Kafka.

    The same are: when callbacks run, what `tell` shows in them, which offsets are staged and dropped, what may be
    called when, and what is an error. It hands out long runs of one partition, as librdkafka does. What a rebalance
    leaves here is paused until the callbacks have returned, and is fetched again once a seek has woken the fetching: in
    librdkafka that takes up to a second otherwise, here for ever.
    """

    def __init__(self, *, is_kip848: bool = True) -> None:
        self._KafkaConsumer__is_kip848 = is_kip848  # by this Arroyo's own tells which protocol it follows
        self._log: dict[int, list[BrokerValue[KafkaPayload]]] = {}
        self._run: Partition | None = None
        self._on_assign: OnAssign | None = None
        self._on_revoke: OnRevoke | None = None
        self._positions: dict[Partition, int] = {}
        self._staged: dict[Partition, int] = {}
        self._KafkaConsumer__staged_offsets = self._staged  # Arroyo's name; one mapping for good, as there
        self._paused: set[Partition] = set()
        self._retained: set[Partition] = set()  # in the callbacks of a rebalance
        self._asleep: set[Partition] = set()
        self.subscribed: list[Topic] = []
        self.committed: dict[int, int] = {}
        """By the partition's index."""
        self.on_commit: Callable[[Mapping[int, int]], None] = lambda offsets: None
        """Called with what is committed, just before it is."""
        self.commit_errors: deque[Exception] = deque()
        """What commits raise, one each. With nothing staged nothing is sent, so that nothing can fail."""
        self.refused: list[dict[int, int]] = []
        """What each of those was to commit."""
        self.events: deque[Callable[[], None]] = deque()
        """What happens in the next polls, one each, before messages: mostly `assign` and `revoke`."""
        self.events_while_waiting: deque[Callable[[], None]] = deque()
        """As `events`, in polls that may wait (a timeout above 0); a message may follow in the same poll."""
        self.when_idle: Callable[[], None] = lambda: None
        """Called by a poll that may wait and has no message."""
        self.polls: list[float | None] = []
        """The timeouts of all polls."""
        self.calls: list[tuple[str, dict[int, int] | list[int]]] = []
        """Every ``seek`` to another place, ``pause`` and ``resume``, with the partitions' indexes (and offsets)."""
        self.revoked_paused: set[int] = set()
        """Partitions that were revoked while they were paused, which librdkafka may never fetch again."""
        self.is_closed = False

    # Kafka's side.

    def produce(self, index: int, *offsets: int, value: bytes = b"") -> None:
        """Append messages at these offsets; between them there may be gaps, as compaction leaves them."""
        self._log.setdefault(index, []).extend(broker_value(index, offset, value) for offset in offsets)

    def messages(self, index: int) -> Sequence[BrokerValue[KafkaPayload]]:
        """All messages of the partition."""
        return self._log.get(index, [])

    def rebalance(self, *indexes: int) -> None:
        """In the next polls the assignment becomes this one: eager all are revoked first, else only the difference."""
        wanted = {partition(index) for index in indexes}

        def revoke() -> None:
            gone = self._positions.keys() - wanted if self._KafkaConsumer__is_kip848 else set(self._positions)
            if gone:
                self.revoke(*sorted(each.index for each in gone))

        def assign() -> None:
            new = wanted - self._positions.keys()
            if new:
                self.assign(*sorted(each.index for each in new))

        self.events += [revoke, assign]

    def assign(self, *indexes: int) -> None:
        """The assignment callback of librdkafka."""
        offsets = {partition(index): self.committed.get(index, 0) for index in indexes}
        self._positions.update(offsets)
        self._paused.difference_update(offsets)
        self._asleep.difference_update(offsets)
        with self._calling_back(self._positions.keys() - offsets.keys()):
            if self._on_assign is not None:
                self._on_assign(offsets)

    def revoke(self, *indexes: int) -> None:
        """The revocation callback of librdkafka."""
        partitions = [partition(index) for index in indexes]
        try:
            with self._calling_back(self._positions.keys() - set(partitions)):
                if self._on_revoke is not None:
                    self._on_revoke(partitions)
        finally:
            for each in partitions:
                self._staged.pop(each, None)
                self._positions.pop(each, None)
                if each in self._paused:
                    self.revoked_paused.add(each.index)
                self._paused.discard(each)
                self._asleep.discard(each)

    @contextmanager
    def _calling_back(self, retained: Collection[Partition]) -> Iterator[None]:
        self._retained = set(retained)
        try:
            yield
        finally:
            self._asleep |= self._retained
            self._retained = set()

    # Arroyo's side.

    def subscribe(
        self, topics: Sequence[Topic], on_assign: OnAssign | None = None, on_revoke: OnRevoke | None = None
    ) -> None:
        self.subscribed, self._on_assign, self._on_revoke = list(topics), on_assign, on_revoke

    def unsubscribe(self) -> None:
        self.subscribed = []

    def poll(self, timeout: float | None = None) -> BrokerValue[KafkaPayload] | None:
        self._check_open()
        self.polls.append(timeout)
        may_wait = timeout is None or timeout > 0
        if self.events:
            self.events.popleft()()
            return None
        if may_wait and self.events_while_waiting:
            self.events_while_waiting.popleft()()
        value = self._next()
        if value is None and may_wait:
            self.when_idle()
        return value

    def _next(self) -> BrokerValue[KafkaPayload] | None:
        ready = sorted(self._positions.keys() - self._paused - self._asleep)
        if self._run in ready:
            ready.insert(0, self._run)
        for each in ready:
            log = self._log.get(each.index, [])
            place = bisect_left(log, self._positions[each], key=lambda value: value.offset)
            if place < len(log):
                self._run = each
                self._positions[each] = log[place].next_offset
                return log[place]
        return None

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._check_assigned("pause", partitions)
        self.calls.append(("pause", [each.index for each in partitions]))
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._check_assigned("resume", partitions)
        self.calls.append(("resume", [each.index for each in partitions]))
        self._paused.difference_update(partitions)

    def paused(self) -> Sequence[Partition]:
        self._check_open()
        return [*self._paused]

    def tell(self) -> Mapping[Partition, int]:
        self._check_open()
        return self._positions  # not a copy: Arroyo's isn't one either

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self._check_assigned("seek", offsets)
        moved = {each.index: offset for each, offset in offsets.items() if offset != self._positions[each]}
        if moved:  # a seek to where it is only wakes the fetching
            self.calls.append(("seek", moved))
        self._positions.update(offsets)
        self._asleep.difference_update(offsets)

    def stage_offsets(self, offsets: Mapping[Partition, int]) -> None:
        self._staged.update(offsets)

    def commit_offsets(self) -> Mapping[Partition, int]:
        self._check_assigned("commit", self._staged)
        staged = dict(self._staged)
        offsets = {each.index: offset for each, offset in staged.items()}
        if offsets and self.commit_errors:
            self.refused.append(offsets)
            raise self.commit_errors.popleft()
        self.on_commit(offsets)
        self.committed.update(offsets)
        self._staged.clear()  # not before it has gone well
        return staged

    def close(self, timeout: float | None = None) -> None:
        if self._positions:
            self.revoke(*[each.index for each in self._positions])
        self.is_closed = True

    @property
    def closed(self) -> bool:
        return self.is_closed

    @property
    def member_id(self) -> str:
        return "scripted-member"

    def paused_indexes(self) -> set[int]:
        """The partitions that are paused on this consumer, by index."""
        return {each.index for each in self._paused}

    def _check_open(self) -> None:
        if self.is_closed:
            raise RuntimeError("the consumer is closed")

    def _check_assigned(self, action: str, partitions: Iterable[Partition]) -> None:
        self._check_open()
        if set(partitions) - self._positions.keys():
            raise ConsumerError(f"cannot {action} unassigned partitions")
