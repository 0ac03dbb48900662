"""The four kinds of pipeline: the producer, two leader groups, and the follower behind the gate.

Each runs on a thread of its own, with real Arroyo processors. They note in the journal what they do.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future

from arroyo.backends.abstract import Producer as ArroyoProducer
from arroyo.backends.abstract import ProducerFuture
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.backends.kafka.commit import CommitCodec
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, FilteredPayload, Message, Partition, Topic
from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as DeliveredMessage
from runner import close_producer

from arroyo_sync import CommitLogConsumer, CommitLogPublisher, SynchronizedStrategyFactory
from demo.broker import Stage
from demo.journal import Journal, Publication, Release

Payload = FilteredPayload | KafkaPayload


class Pipeline(ABC):
    """A thread that works until it is told to stop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: Exception | None = None
        """What the thread died of."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def work(self) -> None:
        """What the thread does."""

    @abstractmethod
    def stop(self) -> None:
        """Have `work` end soon. Doesn't wait for it, and does nothing if it has ended."""

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self.work()
        except Exception as error:
            self.error = error


class Traffic(Pipeline):
    """Produces events evenly, ``rate`` a second over all partitions."""

    def __init__(self, stage: Stage, journal: Journal, rate: float) -> None:
        super().__init__("producer")
        self._stage = stage
        self._journal = journal
        self._rate = rate
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def work(self) -> None:
        producer = Producer({**self._stage.producer_settings(), "linger.ms": 1})
        began_at, sent = time.monotonic(), 0
        while not self._stopped.wait(0.005):
            due = int((time.monotonic() - began_at) * self._rate)
            while sent < due:
                partition = sent % self._stage.partitions
                producer.produce(
                    self._stage.events, f"event {sent}", partition=partition, on_delivery=self._on_delivery
                )
                sent += 1
            producer.poll(0)
        producer.flush(10)

    def _on_delivery(self, error: KafkaError | None, message: DeliveredMessage) -> None:
        partition, offset = message.partition(), message.offset()
        if error is None and partition is not None and offset is not None:
            self._journal.produced[partition].append(offset)


class Leader(Pipeline, ProcessingStrategyFactory[KafkaPayload]):
    """A member of a leader group: it commits every event and publishes what it has committed."""

    def __init__(self, stage: Stage, journal: Journal, group: str, member: int, *, interval: float) -> None:
        super().__init__(f"{group}/{member}")
        self.partitions: frozenset[int] = frozenset()
        """What it is assigned."""
        self._may_work = threading.Event()
        self._may_work.set()
        self._producer = _NotingProducer(KafkaProducer({**stage.producer_settings(), "linger.ms": 1}), journal, group)
        self._publisher = CommitLogPublisher(
            self._producer, Topic(stage.commit_log), stage.group(group), interval=interval
        )
        consumer = KafkaConsumer(stage.consumer_settings(group, self.name))
        self._processor = StreamProcessor(consumer, Topic(stage.events), self)

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.partitions = frozenset(partition.index for partition in partitions)
        return RunTask(self._work_on, self._publisher.step(commit, partitions))

    def stand_still(self) -> None:
        """Stop working, as a leader does whose database has gone away, until `go_on`."""
        self._may_work.clear()

    def go_on(self) -> None:
        self._may_work.set()

    def stop(self) -> None:
        self.go_on()
        self._processor.signal_shutdown()

    def _work_on(self, message: Message[KafkaPayload]) -> KafkaPayload:
        self._may_work.wait()
        return message.payload

    def work(self) -> None:
        try:
            self._processor.run()
        finally:
            close_producer(self._producer, "The last commits")


class Follower(Pipeline, ProcessingStrategyFactory[KafkaPayload]):
    """Gets each event when both leader groups have committed it: as in the README."""

    def __init__(self, stage: Stage, journal: Journal) -> None:
        super().__init__("follower")
        self.is_assigned = False
        self._journal = journal
        self._assignments = 0
        commit_log = CommitLogConsumer(
            {**stage.producer_settings(), **stage.settings},
            topic=Topic(stage.commit_log),
            groups={stage.group(group) for group in journal.groups},
        )
        self.factory = SynchronizedStrategyFactory(self, commit_log)
        consumer = self.factory.consumer(stage.consumer_settings("follower", "follower"))
        self._processor = StreamProcessor(consumer, Topic(stage.events), self.factory)

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self._assignments += 1
        self.is_assigned = True
        return RunTask(self._note, CommitOffsets(commit))

    def stop(self) -> None:
        self._processor.signal_shutdown()

    def _note(self, message: Message[KafkaPayload]) -> None:
        value = message.value
        assert isinstance(value, BrokerValue)
        release = Release(value.offset, time.monotonic(), self._assignments)
        self._journal.released[value.partition.index].append(release)

    def work(self) -> None:
        self._processor.run()


class _NotingProducer(ArroyoProducer[KafkaPayload]):
    """Notes each offset that is published, with the time just before."""

    def __init__(self, inner: KafkaProducer, journal: Journal, group: str) -> None:
        self._inner = inner
        self._journal = journal
        self._group = group

    def produce(
        self, destination: Topic | Partition, payload: KafkaPayload
    ) -> ProducerFuture[BrokerValue[KafkaPayload]]:
        at = time.monotonic()
        future = self._inner.produce(destination, payload)
        commit = CommitCodec().decode(payload)
        self._journal.published[self._group, commit.partition.index].append(Publication(commit.offset, at))
        return future

    def close(self) -> Future[None]:
        return self._inner.close()
