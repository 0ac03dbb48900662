"""What a leader publishes next on the commit log, partition by partition: a schedule without clock, thread or Kafka.

Guarantees
    - At most one record of a partition is in flight, and the next one carries whatever is newest by then. So an outage
      of the broker piles nothing up, and ends with the newest offset.
    - A partition is published at most once an interval, its first commit after a pause at once. A record that failed is
      due again after an interval.
    - A record that the producer must have given up by now, and of which it says nothing, has failed as well: nothing is
      in flight for ever. What the producer says after all changes nothing.
    - A partition that wasn't published for a heartbeat is due again with the same offset.
    - The newest commit counts, not the highest: a leader that goes back must close its followers' gates.

Threads
    None of its own. `ReportWriter` calls everything under its lock, but for `QueuedPartition.newest`, which the
    processor's thread writes without it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from datetime import datetime, timezone
from typing import NamedTuple

from arroyo.backends.abstract import ProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import BrokerValue, Partition

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.kafka.client_settings import DEFAULT_DELIVERY_TIMEOUT_SECONDS

Delivery = ProducerFuture[BrokerValue[KafkaPayload]]

MAX_RECEIVED_TIMES = 10_000
"""How many times per partition the percentile is taken of, the newest ones: enough for it, and a bound on memory."""

ANSWER_MARGIN_SECONDS = 10.0
"""How much later than it must the producer may say what became of a record.

It begins with the first look that finds the answer late: a process that was stopped hears of its deliveries then.
"""


class QueuedPartition:
    """What is known of one partition.

    `newest` is written by the processor alone, before it reads `pending`; whoever publishes clears `pending` before it
    reads `newest`. So a commit that finds `pending` set needs no lock: whoever clears it will see that commit's offset.
    Everything else is written under the lock.
    """

    __slots__ = (
        "answer_due_at",
        "confirmed",
        "delivery",
        "handed_over_at",
        "is_answer_late",
        "is_hurried",
        "is_in_flight",
        "is_unclear",
        "lacks_id",
        "last_p99",
        "last_seconds",
        "newest",
        "partition",
        "pending",
        "received",
        "taken",
    )

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.newest: tuple[int, datetime | None] | None = None
        """The offset last passed to ``commit``, and the timestamp of the message that it came with."""
        self.pending = False
        """Something was committed, or a delivery failed, since a record was last taken."""
        self.is_unclear = False
        """Whether `newest` is still what the group has committed isn't known, so it isn't published."""
        self.is_hurried = False
        """Whether what is pending needn't wait for the interval."""
        self.lacks_id = False
        """Whether its last record didn't carry its topic's id."""
        self.is_in_flight = False
        """A record was taken, and its end isn't known yet."""
        self.taken: int | None = None
        """The offset of the record that was taken last."""
        self.confirmed: int | None = None
        """The offset of the record that was delivered last."""
        self.delivery: Delivery | None = None
        """Of the record in flight, once the producer has it."""
        self.handed_over_at = -math.inf
        """When a record was last taken, by the clock."""
        self.answer_due_at = math.inf
        """When its end must be known."""
        self.is_answer_late = False
        """Whether the margin has begun, and `answer_due_at` is its end."""
        self.last_seconds: float | None = None
        """The last known timestamp, for messages that come without one."""
        self.received: deque[float] = deque(maxlen=MAX_RECEIVED_TIMES)
        """When the events since the last record were received, if `received_timestamps` says so."""
        self.last_p99: float | None = None

    def __repr__(self) -> str:
        return f"{self.partition.topic.name}[{self.partition.index}]"


class DueReport(NamedTuple):
    """What is to be published now."""

    queued: QueuedPartition
    offset: int
    orig_message_ts: float | None
    """``None``: no message with a timestamp was committed yet."""
    received_p99: float | None


class Outcome(NamedTuple):
    """How a record ended."""

    queued: QueuedPartition
    error: Exception | None
    """``None``: it was delivered."""


class NoAnswer(Exception):
    """The producer never said what became of a record."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no answer in {seconds:g} seconds")


class PublishQueue:
    """See the module's docstring.

    :param interval: seconds between two records of a partition at least.
    :param heartbeat: seconds without a record, after which a partition is published again.
    :param delivery_timeout: seconds after which the producer gives a record up and says so.
    """

    def __init__(
        self, interval: float, heartbeat: float, delivery_timeout: float = DEFAULT_DELIVERY_TIMEOUT_SECONDS
    ) -> None:
        self.partitions: dict[Partition, QueuedPartition] = {}
        self.due_at = math.inf
        """Nothing is due before, heartbeats aside. May be read without the lock."""
        self.heartbeat_due_at = math.inf
        """No heartbeat is due before. May be read without the lock."""
        self._interval = interval
        self._heartbeat = heartbeat
        self._delivery_timeout = delivery_timeout
        # Those that are pending or in flight, in the order in which they became so.
        self._waiting: dict[QueuedPartition, None] = {}

    @property
    def waiting(self) -> Collection[QueuedPartition]:
        """Partitions with something to publish, or with a record in flight."""
        return self._waiting.keys()

    @property
    def unconfirmed(self) -> list[QueuedPartition]:
        """Those of them whose newest offset isn't known to have arrived."""
        return [each for each in self._waiting if each.newest is None or each.newest[0] != each.confirmed]

    def reached(self, partition: Partition) -> int | None:
        """How far the group has committed it, if that is known. Any thread may ask, without the lock."""
        queued = self.partitions.get(partition)
        newest = None if queued is None or queued.is_unclear else queued.newest
        return None if newest is None else newest[0]

    def add(self, partition: Partition) -> QueuedPartition:
        """The partition's entry, a new one if there is none."""
        queued = self.partitions.get(partition)
        if queued is None:
            queued = self.partitions[partition] = QueuedPartition(partition)
        return queued

    def keep_only(self, partitions: Collection[Partition]) -> None:
        """Forget all others."""
        for partition in self.partitions.keys() - set(partitions):
            self._waiting.pop(self.partitions.pop(partition), None)

    def mark_pending(self, queued: QueuedPartition) -> None:
        """Its newest offset is to be published, from the next update on."""
        queued.is_unclear = False
        queued.pending = True
        self._waiting[queued] = None

    def mark_unclear(self, queued: QueuedPartition) -> None:
        """Nothing of it is published until the next `mark_pending`."""
        queued.is_unclear = True
        queued.pending = False

    def mark_heartbeats(self, now: float) -> None:
        """What was silent for a heartbeat is to be published again."""
        if now < self.heartbeat_due_at:
            return
        next_due_at = now + self._heartbeat
        for queued in self.partitions.values():
            if queued.newest is None or queued.pending or queued.is_unclear:
                continue
            if not queued.is_in_flight and now - queued.handed_over_at >= self._heartbeat:
                self.mark_pending(queued)
            else:
                next_due_at = min(next_due_at, queued.handed_over_at + self._heartbeat)
        # Not sooner than this, which bounds how often all partitions are gone through.
        self.heartbeat_due_at = max(next_due_at, now + self._heartbeat / 100)

    def mark_all(self) -> None:
        """Every partition is to be published now, whatever the interval."""
        for queued in self.partitions.values():
            self.mark_now(queued)

    def mark_now(self, queued: QueuedPartition) -> bool:
        """It is to be published now, whatever the interval. Whether there is anything to publish."""
        if queued.newest is None or queued.is_unclear:
            return False
        queued.is_hurried = True
        self.due_at = -math.inf  # whoever looks before the next update waits for nothing
        self.mark_pending(queued)
        return True

    def update(self, now: float) -> tuple[list[Outcome], list[DueReport]]:
        """Take note of the records that have ended, and take what is due."""
        outcomes: list[Outcome] = []
        due: list[DueReport] = []
        self.due_at = math.inf
        for queued in list(self._waiting):
            outcome, report = self.update_one(queued, now)
            if outcome is not None:
                outcomes.append(outcome)
            if report is not None:
                due.append(report)
            if not queued.pending and not queued.is_in_flight:
                del self._waiting[queued]
        return outcomes, due

    def update_one(self, queued: QueuedPartition, now: float) -> tuple[Outcome | None, DueReport | None]:
        """The same for one partition. What is taken is in flight until `failed`, `give_up` or its delivery's end."""
        outcome = self._settle(queued, now)
        is_due = queued.is_hurried or now - queued.handed_over_at >= self._interval
        report = self._take(queued, now) if queued.pending and not queued.is_in_flight and is_due else None
        if queued.pending or queued.is_in_flight:
            self.due_at = min(self.due_at, self._due_at(queued, now))
        return outcome, report

    def handed_over(self, queued: QueuedPartition, delivery: Delivery) -> None:
        """The producer has what was taken."""
        queued.delivery = delivery

    def failed(self, queued: QueuedPartition, now: float) -> None:
        """What was taken didn't arrive: the newest offset is due after an interval.

        A producer that refuses isn't asked without end that way.
        """
        queued.is_in_flight = queued.is_hurried = False
        queued.delivery = None
        queued.handed_over_at = now
        if not queued.is_unclear:
            self.mark_pending(queued)

    def give_up(self, queued: QueuedPartition) -> None:
        """What was taken can't be published, now or later."""
        queued.is_in_flight = False

    def _settle(self, queued: QueuedPartition, now: float) -> Outcome | None:
        if not queued.is_in_flight:
            return None
        delivery = queued.delivery
        if delivery is None or not delivery.done():
            return self._settle_unanswered(queued, now)
        try:
            delivery.result()
        except INTERRUPTIONS:
            raise  # it is looked at again
        except Exception as error:
            self.failed(queued, now)
            return Outcome(queued, error)
        queued.is_in_flight = False
        queued.delivery = None
        queued.confirmed = queued.taken
        return Outcome(queued, None)

    def _settle_unanswered(self, queued: QueuedPartition, now: float) -> Outcome | None:
        if now < queued.answer_due_at:
            return None
        if not queued.is_answer_late:
            queued.is_answer_late = True
            queued.answer_due_at = now + ANSWER_MARGIN_SECONDS
            return None
        self.failed(queued, now)
        return Outcome(queued, NoAnswer(self._delivery_timeout + ANSWER_MARGIN_SECONDS))

    def _take(self, queued: QueuedPartition, now: float) -> DueReport:
        queued.pending = queued.is_hurried = False  # before `newest` is read
        queued.is_in_flight = True
        queued.handed_over_at = now
        queued.answer_due_at = now + self._delivery_timeout
        queued.is_answer_late = False
        self.heartbeat_due_at = min(self.heartbeat_due_at, now + self._heartbeat)
        assert queued.newest is not None  # what is pending was committed
        offset, timestamp = queued.newest
        queued.taken = offset
        if timestamp is not None:
            queued.last_seconds = _unix_seconds(timestamp)
        if queued.received:
            times = sorted(queued.received)
            queued.received.clear()
            queued.last_p99 = times[int(len(times) * 0.99)]
        return DueReport(queued, offset, queued.last_seconds, queued.last_p99)

    def _due_at(self, queued: QueuedPartition, now: float) -> float:
        """When something can have changed, or, of a record in flight, when to look.

        Not sooner than a tenth of an interval, which bounds how often all that is waiting is gone through. In an outage
        all of it is in flight, and nothing changes: so not sooner than a tenth of the time that it has been so either,
        but for a tenth of a heartbeat at most, by which an answer is seen later.
        """
        wait_seconds = 0.0 if queued.is_hurried else self._interval
        due_at = queued.handed_over_at + wait_seconds if queued.pending else now + self._interval
        in_flight_seconds = min(now - queued.handed_over_at, self._heartbeat) if queued.is_in_flight else 0.0
        return max(due_at, now + max(self._interval, in_flight_seconds) / 10)


def _unix_seconds(timestamp: datetime) -> float:
    """Arroyo's timestamps of broker messages are naive and in UTC (``KafkaConsumer.poll``)."""
    return (timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=timezone.utc)).timestamp()
