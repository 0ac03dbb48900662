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
    it, since its own thread has ended, most likely: by a line of its own, that says what a person is to do.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from arroyo.backends.abstract import Producer
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import Partition, Topic

from arroyo_sync.core.errors import MalformedRecord
from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.leaders.commit_log.publishing.delivery_log import DeliveryLog
from arroyo_sync.leaders.commit_log.publishing.publish_queue import (
    Delivery,
    DueReport,
    Outcome,
    PublishQueue,
    QueuedPartition,
)
from arroyo_sync.leaders.commit_log.record import TOPIC_ID_HEADER, CommitRecord, encode

FINISH_SECONDS = 1.0
"""How long a commit log that can't be written may hold the leader up at the end of an assignment.

The next owner of the partitions reports them at its start, so little is lost.
"""

MAX_LINGER_SECONDS = FINISH_SECONDS / 2
"""How long a producer may keep a report to send it with later ones.

`ReportWriter.finish` waits for two in a row: the one that is on its way, and the last one.
"""

FINISH_POLL_SECONDS = 0.005
"""How often `ReportWriter.finish` checks for deliveries: Arroyo's simple futures can't be waited for."""

FAILED_PASS_SECONDS = 1.0
"""How long the thread rests after a pass that failed: what it failed of may still be there."""


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
        self._log = DeliveryLog(group, topic.name, clock)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # All of these are guarded by the lock; the thread reads the first one without it as well.
        self._is_active = False
        self._failing: set[QueuedPartition] = set()
        self._is_untold = self._is_untold_logged = False
        self._thread: threading.Thread | None = None
        self._waits_until = -math.inf
        """When the thread wakes up, while it waits for something to be due."""

    # These are called by the processor's thread.

    def begin(self) -> None:
        """Publish from now on."""
        with self._lock:
            self._is_active = True
            self._mark_without_id()  # the id may have come between two assignments

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
            if self._thread is None:
                self._begin_thread()  # first: where that is interrupted, nothing is taken yet
            self.queue.mark_pending(partition)
            outcome, report = self.queue.update_one(partition, now)
            outcomes = () if outcome is None else (outcome,)
            is_over = self._count(outcomes)
            self._wake_if_due_sooner()
        self._hand_over_and_log(() if report is None else (report,), outcomes, is_over)

    def poll(self) -> None:
        """Publish what is due: new offsets, retries, heartbeats. Never waits for delivery."""
        now = self._clock()
        if now >= self.queue.due_at or now >= self.queue.heartbeat_due_at:
            self._publish(with_heartbeats=True)

    def repeat_with_ids(self) -> None:
        """A topic's id is known now: what was published without it says the same again with it, at once.

        Any thread may call it. Before, nobody can tell of which topic those reports speak, and this process may hang
        from now on.
        """
        with self._lock:
            if self._is_active:
                self._mark_without_id()

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
                if not self.queue.waiting or now >= deadline:
                    break
                if timeout is None and self.failed_deliveries > failed_before:
                    break
                self._changed.wait(FINISH_POLL_SECONDS)
        with self._lock:
            unconfirmed = self.queue.unconfirmed
        if unconfirmed:
            self._log.unconfirmed(unconfirmed)

    def stop(self) -> None:
        """Publish nothing more, and end the thread. It never waits for the broker, so it ends at once."""
        with self._lock:
            self._is_active = False
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread.is_alive():  # else it was interrupted as it was started
            thread.join()

    def _mark_without_id(self) -> None:
        """Under the lock."""
        marked = [
            self.queue.mark_now(each)
            for each in self.queue.partitions.values()
            if each.lacks_id and each.partition.topic.name in self._topic_ids
        ]
        if any(marked) and self._is_active:  # `stop` may have come while a report was handed over
            if self._thread is None:
                self._begin_thread()
            self._wake_if_due_sooner()

    def _begin_thread(self) -> None:
        """Under the lock. If the machine has none, `poll` publishes all the same, and the next report tries again."""
        self._thread = threading.Thread(target=self._run, name="arroyo-sync-publish-commit-log", daemon=True)
        try:
            self._thread.start()
        except INTERRUPTIONS:
            raise  # it may run by now, until `stop`
        except Exception:
            self._thread = None

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
                self._log.failed_pass(error)
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
        try:
            refused = [each for each in map(self._hand_over, due) if each is not None]
        except BaseException:  # of a signal handler, or what ends a thread
            self._give_back(due)
            raise
        self._log_all(outcomes, is_over)
        self._log_all(refused, is_over=False)
        self._log_untold()

    def _hand_over(self, report: DueReport) -> Outcome | None:
        """Give it to the producer. What that raises, `INTERRUPTIONS` aside, is a failed delivery."""
        topic = report.queued.partition.topic.name
        topic_id = self._topic_ids.get(topic)
        try:
            delivery: Delivery | None = self._producer.produce(self._topic, self._payload(report, topic_id))
        except MalformedRecord as error:
            return self._end(report, error, is_final=True)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            return self._end(report, error, is_final=False)
        with self._lock:
            self.queue.handed_over(report.queued, _TAKEN if delivery is None else delivery)
            report.queued.lacks_id = topic_id is None
            if topic_id is None and topic in self._topic_ids:
                self._mark_without_id()  # it came meanwhile
            self._is_untold = self._is_untold or delivery is None
        return None

    def _give_back(self, due: Sequence[DueReport]) -> None:
        """What the producer hasn't got of these is due again after an interval."""
        now = self._clock()
        with self._lock:
            for queued in (each.queued for each in due):
                if queued.is_in_flight and queued.delivery is None:
                    self.queue.failed(queued, now)

    def _log_untold(self) -> None:
        """Once, where the producer tells nothing."""
        if not self._is_untold or self._is_untold_logged:  # without the lock: each becomes true once
            return
        with self._lock:
            is_due, self._is_untold_logged = not self._is_untold_logged, True
        if is_due:
            self._log.untold(self._producer)

    def _payload(self, report: DueReport, topic_id: bytes | None) -> KafkaPayload:
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
        was_failing = bool(self._failing)
        for queued, error in outcomes:
            if error is None:
                self._failing.discard(queued)
            else:
                self._failing.add(queued)
                self.failed_deliveries += 1
        if was_failing and outcomes:  # what isn't assigned here any more is somebody else's
            self._failing = {each for each in self._failing if self.queue.partitions.get(each.partition) is each}
        return was_failing and not self._failing

    def _log_all(self, outcomes: Sequence[Outcome], is_over: bool) -> None:
        """Without the lock: a log handler may be anybody's code."""
        for queued, error in outcomes:
            if error is not None:
                self._log.failed(queued, error, self.failed_deliveries)
        if is_over:
            self._log.over()
