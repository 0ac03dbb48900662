"""Writes commit reports to the commit log: hands what is due to the producer, and takes note of what became of it.

Guarantees
    - Nothing is handed over after `ReportWriter.stop` has returned, until the next `ReportWriter.begin`.
    - Nothing here waits for the broker but `ReportWriter.finish`, and that for a second at most.
    - The producer is called and lines are logged without the lock.
    - What was taken out of the queue is handed over before anything is logged, and no line of the log can raise.
    - Whatever ends a pass of the thread, the next one comes.

Threads
    The processor's thread calls everything. But with nothing new to read it doesn't poll its strategy for a second (it
    blocks in ``consumer.poll(1.0)``), which would delay the last commits of a burst. So a daemon thread, begun with the
    first report and ended by `stop`, publishes what is due by then. It sends no heartbeat: a pipeline that hangs must
    not look alive. The lock guards the queue; it is taken about twice a record, not once a message. Whoever takes a
    record out of the queue hands it over; the partition counts as in flight meanwhile, so nobody overtakes.

Failures
    A record that isn't delivered (or not accepted: the producer's queue is full) is counted, logged at most once a
    minute, and retried with the newest offset, until `stop`. So is one of which the producer never says what became of
    it, since its own thread has ended: by a line of its own, that says what a person is to do.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from arroyo.backends.abstract import Producer
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import Partition, Topic
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import MalformedRecord
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka.errors import code_of
from arroyo_sync.leaders.commit_log.publishing.publish_queue import (
    Delivery,
    DueReport,
    NoAnswer,
    Outcome,
    PublishQueue,
    QueuedPartition,
)
from arroyo_sync.leaders.commit_log.record import TOPIC_ID_HEADER, CommitRecord, encode

logger = guarded_logger(__name__)

FINISH_SECONDS = 1.0
"""How long a commit log that can't be written may hold the leader up at the end of an assignment.

The next owner of the partitions reports them at its start, so little is lost.
"""

FINISH_POLL_SECONDS = 0.005
"""How often `ReportWriter.finish` checks for deliveries: Arroyo's simple futures can't be waited for."""

FAILED_PASS_SECONDS = 1.0
"""How long the thread rests after a pass that failed: what it failed of may still be there."""

SHOWN_PARTITIONS = 10


def _taken() -> Delivery:
    future: Future[Any] = Future()
    future.set_result(None)
    return future


_TAKEN = _taken()
"""What stands for a delivery of which a producer tells nothing, such as Arroyo's ``FutureTrackingProducer``."""


class ReportWriter:
    """See the module's docstring.

    :param topic_ids: per data topic the id that its reports carry. Read when a record is made; may grow meanwhile.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        producer: Producer[KafkaPayload],
        topic: Topic,
        group: str,
        queue: PublishQueue,
        topic_ids: Mapping[str, bytes],
        clock: Callable[[], float],
    ) -> None:
        self.failed_deliveries = 0
        """How many records the producer refused, could not deliver or never answered. Under the lock, read without."""
        self.queue = queue
        """Guarded by the lock, but for what says otherwise there."""
        self._producer = producer
        self._topic = topic
        self._group = group
        self._topic_ids = topic_ids
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # All of these are guarded by the lock; the thread reads the first one without it as well.
        self._is_active = False
        self._is_failing = False
        self._is_untold = self._is_untold_logged = False
        self._thread: threading.Thread | None = None
        self._waits_until = -math.inf
        """When the thread wakes up, while it waits for something to be due."""

    # These are called by the processor's thread.

    def begin(self) -> None:
        """Publish from now on."""
        with self._lock:
            self._is_active = True

    def add(self, partition: Partition) -> QueuedPartition:
        """The partition's entry in the queue, a new one if there is none."""
        with self._lock:
            return self.queue.add(partition)

    def report(self, partition: QueuedPartition, received: Sequence[float] = ()) -> None:
        """Publish this partition's newest offset, if it is due, or else when it is. Never waits for delivery.

        :param received: when the events were first received.
        """
        now = self._clock()
        with self._lock:
            if not self._is_active:
                return
            partition.received.extend(received)
            if partition.pending:
                return
            self.queue.mark_pending(partition)
            outcome, report = self.queue.update_one(partition, now)
            outcomes = () if outcome is None else (outcome,)
            is_over = self._count(outcomes)
            if self._thread is None:
                self._thread = self._begin_thread()
            self._wake_if_due_sooner()
        self._hand_over_and_log(() if report is None else (report,), outcomes, is_over)

    def poll(self) -> None:
        """Publish what is due: new offsets, retries, heartbeats. Never waits for delivery."""
        now = self._clock()
        if now >= self.queue.due_at or now >= self.queue.heartbeat_due_at:
            self._publish(with_heartbeats=True)

    def repeat_all(self) -> None:
        """Every partition's newest offset is to be published once more, by the next `poll`."""
        with self._lock:
            self.queue.mark_all()

    def finish(self, timeout: float | None) -> None:
        """Publish every partition's offset once more, and wait for the deliveries, for at most `FINISH_SECONDS`.

        Within that time a failed delivery is retried. What wasn't confirmed is logged; it may still arrive. Without a
        ``timeout`` it ends when a delivery fails.
        """
        now = self._clock()
        deadline = now + (FINISH_SECONDS if timeout is None else min(timeout, FINISH_SECONDS))
        with self._lock:
            if not self._is_active:
                return
            failed_before = self.failed_deliveries
            self.queue.mark_all()
        while True:
            self._publish()
            now = self._clock()
            with self._lock:
                unconfirmed = list(self.queue.waiting)
                if not unconfirmed or now >= deadline:
                    break
                if timeout is None and self.failed_deliveries > failed_before:
                    break
                self._changed.wait(FINISH_POLL_SECONDS)
        if unconfirmed:
            logger.warning(
                "The last offsets of group %s were not confirmed by %s before its pipeline ended. Followers may "
                "wait until the next owner of these partitions reports them: %s",
                self._group,
                self._topic.name,
                _shown(unconfirmed),
            )

    def stop(self) -> None:
        """Publish nothing more, and end the thread. It never waits for the broker, so it ends at once."""
        with self._lock:
            self._is_active = False
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _begin_thread(self) -> threading.Thread | None:
        """``None``: the machine has no more of them. `poll` publishes all the same, and the next report tries again."""
        thread = threading.Thread(target=self._run, name="arroyo-sync-publish-commit-log", daemon=True)
        try:
            thread.start()
        except Exception:
            return None
        return thread

    # The processor's thread, or the one that is begun here.

    def _run(self) -> None:
        """The thread: publish what is due while the processor doesn't poll its strategy. Nothing but `stop` ends it."""
        while self._is_active:
            self._pass()

    def _pass(self) -> None:
        try:
            self._wait_and_publish()
        except BaseException as error:  # a SystemExit would end the thread without a word
            with suppress(BaseException):
                self._log_failed_pass(error)
            with self._lock:
                if self._is_active:
                    self._changed.wait(FAILED_PASS_SECONDS)

    def _wait_and_publish(self) -> None:
        now = self._clock()
        with self._lock:
            if self._is_active and now < self.queue.due_at:
                self._waits_until = self.queue.due_at if self.queue.waiting else math.inf
                self._changed.wait(None if math.isinf(self._waits_until) else max(self._waits_until - now, 0.001))
                self._waits_until = -math.inf
                return
        self._publish()

    def _wake_if_due_sooner(self) -> None:
        """Wake the thread if it waits for longer than it may by now. Under the lock."""
        if self.queue.due_at < self._waits_until:
            self._changed.notify_all()

    def _log_failed_pass(self, error: BaseException) -> None:
        if self._throttle.should_log("pass"):
            logger.warning(
                "The thread that publishes the commits of group %s to %s failed, and goes on: %s: %s",
                self._group,
                self._topic.name,
                type(error).__name__,
                error,
                exc_info=error,
            )

    def _publish(self, *, with_heartbeats: bool = False) -> None:
        """Take note of what has arrived, and hand over what is due."""
        now = self._clock()
        with self._lock:
            if not self._is_active:
                return
            if with_heartbeats:
                self.queue.mark_heartbeats(now)
            outcomes, due = self.queue.update(now)
            is_over = self._count(outcomes)
            self._wake_if_due_sooner()
        self._hand_over_and_log(due, outcomes, is_over)

    def _hand_over_and_log(self, due: Sequence[DueReport], outcomes: Sequence[Outcome], is_over: bool) -> None:
        """In this order: a log handler that hangs, or ends its thread, keeps nothing that was taken."""
        refused = [each for each in map(self._hand_over, due) if each is not None]
        self._log(outcomes, is_over)
        self._log(refused, is_over=False)
        self._log_untold()

    def _hand_over(self, report: DueReport) -> Outcome | None:
        """Give it to the producer. Whatever that raises is a failed delivery."""
        try:
            delivery: Delivery | None = self._producer.produce(self._topic, self._payload(report))
        except MalformedRecord as error:
            return self._end(report, error, is_final=True)
        except Exception as error:
            return self._end(report, error, is_final=False)
        with self._lock:
            self.queue.handed_over(report.queued, _TAKEN if delivery is None else delivery)
            self._is_untold = self._is_untold or delivery is None
        return None

    def _log_untold(self) -> None:
        """Once, where the producer tells nothing."""
        if not self._is_untold or self._is_untold_logged:  # without the lock: each becomes true once
            return
        with self._lock:
            is_due, self._is_untold_logged = not self._is_untold_logged, True
        if is_due:
            logger.warning(
                "The producer of group %s, a %s, doesn't tell what becomes of a record: one that doesn't arrive counts "
                "as delivered, and is only repeated by the next heartbeat. Give the KafkaProducer itself",
                self._group,
                type(self._producer).__name__,
            )

    def _payload(self, report: DueReport) -> KafkaPayload:
        """The record.

        :raises MalformedRecord: no reader could take it.
        """
        partition = report.queued.partition
        seconds = report.orig_message_ts if report.orig_message_ts is not None else time.time()
        key, value = encode(
            CommitRecord(
                partition.topic.name, partition.index, self._group, report.offset, seconds, report.received_p99
            )
        )
        topic_id = self._topic_ids.get(partition.topic.name)
        return KafkaPayload(key, value, [] if topic_id is None else [(TOPIC_ID_HEADER, topic_id)])

    def _end(self, report: DueReport, error: Exception, *, is_final: bool) -> Outcome:
        """It failed before the producer had it."""
        now = self._clock()
        outcome = Outcome(report.queued, error)
        with self._lock:
            if is_final:
                self.queue.give_up(report.queued)
            else:
                self.queue.failed(report.queued, now)
            self._count((outcome,))
        return outcome

    def _count(self, outcomes: Sequence[Outcome]) -> bool:
        """Count the failures; whether an outage is over. Under the lock."""
        failures = sum(outcome.error is not None for outcome in outcomes)
        self.failed_deliveries += failures
        is_over = self._is_failing and failures < len(outcomes)
        self._is_failing = failures > 0 or (self._is_failing and not is_over)
        return is_over

    def _log(self, outcomes: Sequence[Outcome], is_over: bool) -> None:
        """Without the lock: a log handler may be anybody's code."""
        for queued, error in outcomes:
            if error is not None:
                self._log_failure(queued, error)
        if is_over:
            logger.info("Commits of group %s are published to %s again", self._group, self._topic.name)

    def _log_failure(self, queued: QueuedPartition, error: Exception) -> None:
        if isinstance(error, NoAnswer):
            if self._throttle.should_log("silence"):
                logger.warning(
                    "%r: the producer hasn't said for %.0f seconds what became of a commit of group %s for %s, and "
                    "followers may wait; the newest offset is published again (%d failed so far). If its brokers are "
                    "well, its own thread has ended, as by what a metrics backend raises in a delivery callback: "
                    "restart this leader",
                    queued,
                    error.seconds,
                    self._group,
                    self._topic.name,
                    self.failed_deliveries,
                )
        elif self._throttle.should_log("failure"):
            logger.warning(
                "%r: a commit of group %s could not be published to %s, so followers wait; the newest offset is "
                "published as soon as it can be (%d failed so far): %s: %s%s",
                queued,
                self._group,
                self._topic.name,
                self.failed_deliveries,
                type(error).__name__,
                error,
                _advice(error),
            )


def _advice(error: Exception) -> str:
    """What to do, where the broker's words don't say it."""
    if code_of(error) == KafkaError.INVALID_TIMESTAMP:
        return (
            ". The brokers refuse this machine's time: set its clock right, or the topic's message.timestamp.type to "
            "LogAppendTime"
        )
    if code_of(error) == KafkaError._FATAL:
        return (
            ". It never can be: this producer has failed for good, as one with enable.idempotence does that may not "
            "write so. librdkafka has written why to standard error; restart this leader once that is mended"
        )
    return ""


def _shown(partitions: Collection[QueuedPartition]) -> str:
    """Some of them, with their offsets."""
    named = [f"{each!r} offset {each.newest[0]}" for each in partitions if each.newest is not None]
    more = len(named) - SHOWN_PARTITIONS
    return ", ".join(named[:SHOWN_PARTITIONS]) + (f" and {more} more" if more > 0 else "")
