"""The leader's side: commit, and announce on the commit log what was committed.

`PublishCommitLog` is the last step of a leader's pipeline, where ``CommitOffsets`` would stand. It does all that
``CommitOffsets`` does, and publishes per partition the newest committed offset, so that followers may go that far.

Guarantees
    - No offset is published before it was passed to ``commit``, and none after `join` or `terminate` has returned.
    - A partition's records reach the commit log in the order of its commits: at most one is in flight, the next one
      carries whatever is newest by then. So an outage of the broker piles nothing up, and ends with the newest offset.
    - `submit` and `poll` never wait for the broker, and a commit log that can't be written never ends the pipeline.

Threads
    The processor's thread calls `submit`, `poll` and `join`, and these publish. But with nothing new to read it doesn't
    call `poll` for a second (it blocks in ``consumer.poll(1.0)``), which would delay the last commits of a burst. So a
    daemon thread, begun with the first commit, publishes what is due by then. It sends no heartbeat: a pipeline that
    hangs must not look alive. One lock guards all publishing; it is taken about once a record, not once a message.

Failures
    A record that isn't delivered (or not accepted: the producer's queue is full) is counted, logged at most once a
    minute, and retried with the newest offset, until the pipeline ends.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from arroyo.backends.abstract import Producer, ProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.leaders.commit_log.record import CommitRecord, encode

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOGS = 60.0
"""How often at most a failure to publish is logged."""

JOIN_POLL_SECONDS = 0.005
"""How often `join` looks whether its records were delivered: Arroyo's simple futures can't be waited for."""

MAX_RECEIVED_TIMES = 10_000
"""How many times per partition the percentile is taken of, the newest ones: enough for it, and a bound on memory."""

ReceivedTimestamps = Callable[[Message[Any]], Iterable[float]]


class _Cell:
    """What is known of one partition.

    `newest` is written by the processor alone, before it reads `pending`; a publisher clears `pending` before it reads
    `newest`. So a commit that finds `pending` set needs no lock: whoever clears it will see that commit's offset.
    Everything else is written under the lock.
    """

    __slots__ = ("partition", "newest", "pending", "future", "handed_over_at", "last_seconds", "received", "last_p99")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.newest: tuple[int, datetime | None] = (0, None)
        """The offset last passed to ``commit``, and the timestamp of the message that it came with."""
        self.pending = False
        """Something was committed, or a delivery failed, since a record was last handed to the producer."""
        self.future: ProducerFuture[BrokerValue[KafkaPayload]] | None = None
        """The record in flight."""
        self.handed_over_at = -math.inf
        """When a record was last handed to the producer, by the clock."""
        self.last_seconds: float | None = None
        """The last known timestamp, for messages that come without one."""
        self.received: deque[float] = deque(maxlen=MAX_RECEIVED_TIMES)
        """When the events since the last record were received, if `received_timestamps` tells. Under the lock."""
        self.last_p99: float | None = None


class PublishCommitLog(CommitOffsets):
    """Commit offsets and publish them on the commit log. Stands last in the pipeline, in place of ``CommitOffsets``.

    :param commit: what Arroyo hands to ``create_with_partitions``.
    :param producer: an Arroyo producer for the commit log's cluster, with any partitioner that goes by the key. It
        outlives this step: close it after the processor has ended.
    :param topic: the commit log.
    :param group: this pipeline's consumer group, the leader group.
    :param interval: seconds. A partition is published at most this often; its first commit after a pause, at once.
    :param heartbeat: seconds. A partition that was not published for this long is published again with the same offset,
        so that its record doesn't expire and a leader that is idle can be told from one that is gone.
    :param received_timestamps: how to tell when the events of a message were first received by the whole system: a
        function from the message (maybe a batch) to Unix seconds, of which there may be none. Each record then carries
        the 99th percentile of the times since the last record, as Snuba's subscription scheduler reads it
        (getsentry/arroyo#295, getsentry/snuba#4922).
    :param clock: monotonic, seconds.
    :raises ConfigurationError: for an empty name, a topic's name that holds a colon, or a time that isn't positive.
    """

    def __init__(
        self,
        commit: Commit,
        producer: Producer[KafkaPayload],
        topic: Topic,
        group: str,
        *,
        interval: float = 0.1,
        heartbeat: float = 10.0,
        received_timestamps: ReceivedTimestamps | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(commit)
        _check(topic, group, interval, heartbeat)
        self.failed_deliveries = 0
        """How many records the producer refused or could not deliver. Written under the lock, read without."""
        self._producer = producer
        self._topic = topic
        self._group = group
        self._interval = interval
        self._heartbeat = heartbeat
        self._received_timestamps = received_timestamps
        self._clock = clock

        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # All of these are written under the lock.
        self._cells: dict[Partition, _Cell] = {}
        # Cells that are pending or have a record in flight, in the order in which they became so.
        self._waiting: dict[_Cell, None] = {}
        # Nothing needs to be looked at before this time; for `poll`, which reads it without the lock.
        self._due_at = math.inf
        self._heartbeat_due_at = math.inf
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._failing = False
        self._throttle = LogThrottle(SECONDS_BETWEEN_LOGS, clock)

    def submit(self, message: Message[Any]) -> None:
        """Commit the message's offsets, and publish those whose partition is due. Never waits for delivery.

        :raises: what ``commit`` raises, and then nothing of this message is published.
        """
        super().submit(message)
        received = tuple(self._received_timestamps(message)) if self._received_timestamps is not None else ()
        timestamp = message.timestamp
        for partition, offset in message.committable.items():
            cell = self._cells.get(partition)
            if cell is None:
                cell = self._add(partition)
            cell.newest = (offset, timestamp)
            if received:
                with self._lock:
                    cell.received.extend(received)
            if not cell.pending:
                self._mark_pending(cell)

    def poll(self) -> None:
        """Let Arroyo commit, and publish what is due: new offsets, retries, heartbeats. Never waits for delivery."""
        super().poll()
        now = self._clock()
        if now >= self._due_at or now >= self._heartbeat_due_at:
            with self._lock:
                self._beat(now)
                self._publish_due(now)

    def close(self) -> None:
        """Nothing yet: the steps before this one hand on their last messages in their `join`."""

    def terminate(self) -> None:
        """Publish nothing more. What is in flight may still arrive."""
        self._stop()

    def join(self, timeout: float | None = None) -> None:
        """Commit all that is staged, publish every partition's offset once more, and wait for the deliveries.

        Blocks for at most ``timeout`` seconds after the commit; without one, until each record was delivered or has
        failed. Within it a failed delivery is retried. What wasn't confirmed in time is logged; it may still arrive.
        """
        deadline = None if timeout is None else self._clock() + timeout
        super().join(timeout)
        with self._lock:
            if self._stopped:
                return
            failed_before = self.failed_deliveries
            for cell in self._cells.values():
                cell.pending = True
                cell.handed_over_at = -math.inf
                self._waiting[cell] = None
            while True:
                now = self._clock()
                self._publish_due(now)
                if not self._waiting or (deadline is not None and now >= deadline):
                    break
                if deadline is None and self.failed_deliveries > failed_before:
                    break
                self._changed.wait(JOIN_POLL_SECONDS)
            if self._waiting:
                logger.warning(
                    "The last offsets of group %s were not confirmed by %s before the pipeline ended, so followers may "
                    "wait until the next member of the group commits: %s",
                    self._group,
                    self._topic.name,
                    ", ".join(f"{_name(cell.partition)} offset {cell.newest[0]}" for cell in self._waiting),
                )
        self._stop()

    def _add(self, partition: Partition) -> _Cell:
        with self._lock:
            cell = self._cells[partition] = _Cell(partition)
            return cell

    def _mark_pending(self, cell: _Cell) -> None:
        now = self._clock()
        with self._lock:
            if self._stopped:
                return
            cell.pending = True
            self._publish_if_due(cell, now)
            self._waiting[cell] = None
            self._due_at = min(self._due_at, self._next_look(cell, now))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="arroyo-sync-publish-commit-log", daemon=True)
                self._thread.start()
            elif len(self._waiting) == 1:
                self._changed.notify_all()

    def _next_look(self, cell: _Cell, now: float) -> float:
        """When the cell is due. Not sooner than a tenth of an interval, which bounds how often all are looked at."""
        soonest = now + self._interval / 10
        return max(cell.handed_over_at + self._interval, soonest) if cell.pending else now + self._interval

    def _publish_due(self, now: float) -> None:
        """Look at every waiting cell. Under the lock."""
        if self._stopped:
            return
        due_at = math.inf
        for cell in list(self._waiting):
            self._publish_if_due(cell, now)
            if cell.pending or cell.future is not None:
                due_at = min(due_at, self._next_look(cell, now))
            else:
                del self._waiting[cell]
        self._due_at = due_at

    def _publish_if_due(self, cell: _Cell, now: float) -> None:
        """Settle the record that was in flight, and hand over the next one if it is time. Under the lock."""
        if cell.future is not None and cell.future.done():
            self._settle(cell, now)
        if cell.pending and cell.future is None and now - cell.handed_over_at >= self._interval:
            self._hand_over(cell, now)

    def _beat(self, now: float) -> None:
        """Mark the partitions that were silent for a heartbeat. Under the lock, and only from `poll`."""
        if now < self._heartbeat_due_at:
            return
        for cell in self._cells.values():
            if not cell.pending and cell.future is None and now - cell.handed_over_at >= self._heartbeat:
                cell.pending = True
                self._waiting[cell] = None
        self._heartbeat_due_at = now + self._heartbeat / 10

    def _hand_over(self, cell: _Cell, now: float) -> None:
        """Give the newest offset to the producer. Under the lock; whatever the producer raises is a failed delivery."""
        cell.pending = False
        cell.handed_over_at = now
        self._heartbeat_due_at = min(self._heartbeat_due_at, now + self._heartbeat)
        try:
            key, value = encode(self._record(cell))
            cell.future = self._producer.produce(self._topic, KafkaPayload(key, value, []))
        except Exception as error:
            self._failed(cell, error, now)

    def _record(self, cell: _Cell) -> CommitRecord:
        offset, timestamp = cell.newest
        if timestamp is not None:
            cell.last_seconds = _unix_seconds(timestamp)
        if cell.received:
            times = sorted(cell.received)
            cell.received.clear()
            cell.last_p99 = times[int(len(times) * 0.99)]
        seconds = cell.last_seconds if cell.last_seconds is not None else time.time()
        return CommitRecord(
            cell.partition.topic.name, cell.partition.index, self._group, offset, seconds, cell.last_p99
        )

    def _settle(self, cell: _Cell, now: float) -> None:
        """Take note of how the record in flight ended. Under the lock."""
        future, cell.future = cell.future, None
        assert future is not None
        try:
            future.result()
        except Exception as error:
            self._failed(cell, error, now)
            return
        if self._failing:
            self._failing = False
            logger.info("Commits of group %s are published to %s again", self._group, self._topic.name)

    def _failed(self, cell: _Cell, error: Exception, now: float) -> None:
        self.failed_deliveries += 1
        self._failing = True
        cell.pending = True
        # The retry waits for the interval too, so that a producer that refuses isn't asked without end.
        cell.handed_over_at = now
        if not self._throttle.should_log("failure"):
            return
        logger.warning(
            "%s: a commit of group %s could not be published to %s, so followers wait; the newest offset is retried "
            "(%d failed so far): %s: %s",
            _name(cell.partition),
            self._group,
            self._topic.name,
            self.failed_deliveries,
            type(error).__name__,
            error,
        )

    def _run(self) -> None:
        """The thread: publish what is due while the processor doesn't call `poll`."""
        with self._lock:
            while not self._stopped:
                now = self._clock()
                if now >= self._due_at:
                    self._publish_due(now)
                self._changed.wait(max(self._due_at - now, self._interval / 10) if self._waiting else None)

    def _stop(self) -> None:
        """Publish nothing more, and end the thread. It never waits for the broker, so it ends at once."""
        with self._lock:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()


def _unix_seconds(timestamp: datetime) -> float:
    """Arroyo's timestamps of broker messages are naive and in UTC (``KafkaConsumer.poll``)."""
    return (timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=timezone.utc)).timestamp()


def _name(partition: Partition) -> str:
    return f"{partition.topic.name}[{partition.index}]"


def _check(topic: Topic, group: str, interval: float, heartbeat: float) -> None:
    if not topic.name or ":" in topic.name:
        raise ConfigurationError(f"topic must name the commit log, without a colon, not {topic.name!r}")
    if not group:
        raise ConfigurationError("group is empty: name the consumer group whose commits are published")
    for name, seconds in (("interval", interval), ("heartbeat", heartbeat)):
        if not seconds > 0:
            raise ConfigurationError(f"{name} must be a positive number of seconds, not {seconds!r}")
