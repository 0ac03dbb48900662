"""Leaders in threads of the test's process, and what arrives on the commit log."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, cast

from arroyo.backends.abstract import Producer, ProducerFuture
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher
from arroyo_sync.leaders.commit_log.record import decode_topic_id
from tests.integration.cluster.waiting import wait_until
from tests.support.passing_step import PassingStep

SECONDS = 90.0
JOIN_TIMEOUT_SECONDS = 50.0
HEARTBEAT_SECONDS = 1.0


class CommitLog:
    """All records of a commit log, as a plain consumer reads them."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.records: list[tuple[str, int]] = []
        """Key and offset, in the order of the log."""
        self.headers: list[list[tuple[str, bytes]]] = []
        """Of the same records."""
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "unused", "log_level": 0})
        self._partition = TopicPartition(topic, 0, OFFSET_BEGINNING)
        self._next_offset = 0
        self._consumer.assign([self._partition])

    def read(self) -> None:
        """What has come by now, which may not be all that is there."""
        for message in self._consumer.consume(1000, timeout=0.05):
            key, value, offset = message.key(), message.value(), message.offset()
            if message.error() is None and offset is not None:
                self._next_offset = offset + 1
            if message.error() is None and key is not None and value is not None:
                self.records.append((key.decode(), json.loads(value)["offset"]))
                self.headers.append(list(cast(list[tuple[str, bytes]], message.headers() or [])))

    def read_to_end(self) -> None:
        """All that is there."""
        _, end = self._consumer.get_watermark_offsets(self._partition, timeout=SECONDS)

        def is_read() -> bool:
            self.read()
            return self._next_offset >= end

        wait_until(is_read, SECONDS, lambda: f"the commit log's end at {end}, not {self._next_offset}")

    def newest(self) -> dict[str, int]:
        self.read()
        return dict(self.records)

    def wait_for(self, expected: dict[str, int]) -> None:
        wait_until(lambda: self.newest() == expected, SECONDS, lambda: f"{expected} on the commit log: {self.newest()}")

    def close(self) -> None:
        self._consumer.close()


class NotingProducer(Producer[KafkaPayload]):
    """Notes what was published, as partition and next offset."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.published: list[tuple[int, int]] = []
        self.published_with_id: list[tuple[int, int]] = []
        """Those that name the topic's id."""
        self._inner = KafkaProducer({"log_level": 0, **settings})

    def produce(
        self, destination: Topic | Partition, payload: KafkaPayload
    ) -> ProducerFuture[BrokerValue[KafkaPayload]]:
        assert payload.key is not None
        report = int(payload.key.split(b":")[1]), json.loads(payload.value)["offset"]
        self.published.append(report)
        if decode_topic_id(payload.headers) is not None:
            self.published_with_id.append(report)
        return self._inner.produce(destination, payload)

    def get_config(self) -> dict[str, Any]:
        return self._inner.get_config()

    def close(self) -> Future[None]:
        return self._inner.close()


class _Worker(PassingStep):
    """Finishes messages below an offset, and has the others in its hands until its end, when it drops them."""

    def __init__(self, leader: Leader, next_step: ProcessingStrategy[KafkaPayload]) -> None:
        super().__init__(next_step)
        self._leader = leader

    def submit(self, message: Message[KafkaPayload]) -> None:
        assert isinstance(message.value, BrokerValue)
        partition, offset = message.value.partition.index, message.value.offset
        if self._leader.finishes_below is None or offset < self._leader.finishes_below:
            super().submit(message)
        else:
            self._leader.in_flight.append((partition, offset))

    def join(self, timeout: float | None = None) -> None:
        began_at = time.monotonic()
        super().join(timeout)
        self._leader.join_seconds.append(time.monotonic() - began_at)


class Leader(ProcessingStrategyFactory[KafkaPayload]):
    """One member of a leader group: a StreamProcessor on a thread, whose last step a `CommitLogPublisher` makes.

    :param finishes_below: it works for ever on messages from this offset on. ``None``: on none.
    :param producer: settings of the commit log's producer.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topic: str,
        commit_log: str,
        producer: Mapping[str, Any],
        *,
        finishes_below: int | None = None,
        **options: Any,
    ) -> None:
        self.finishes_below = finishes_below
        self.in_flight: list[tuple[int, int]] = []
        self.assignments: list[dict[int, int]] = []
        """The mapping that each step was made with."""
        self.published_before: list[int] = []
        """How many records had been published when each step was made."""
        self.join_seconds: list[float] = []
        """How long each step took to end."""
        self.producer = NotingProducer(producer)
        options = {"interval": 0.02, "heartbeat": HEARTBEAT_SECONDS, **options}
        self.publisher = CommitLogPublisher(self.producer, Topic(commit_log), settings["group.id"], **options)
        self._error: BaseException | None = None
        self._is_stopped = False
        self._processor = StreamProcessor(
            KafkaConsumer(settings), Topic(topic), self, join_timeout=JOIN_TIMEOUT_SECONDS
        )
        self._thread = threading.Thread(target=self._run, name=f"leader-{topic}", daemon=True)
        self._thread.start()

    @property
    def published(self) -> list[tuple[int, int]]:
        """All records, as partition and next offset, whether they have arrived or not."""
        return list(self.producer.published)

    def published_by_step(self, number: int) -> list[tuple[int, int]]:
        """Those from when the step with this number was made."""
        return self.published[self.published_before[number] :] if number < len(self.assignments) else []

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.published_before.append(len(self.producer.published))
        self.assignments.append({partition.index: offset for partition, offset in partitions.items()})
        return _Worker(self, self.publisher.step(commit, partitions))

    def wait_for_published(self, *expected: tuple[int, int]) -> None:
        wait_until(
            lambda: set(expected) <= set(self.published), SECONDS, lambda: f"{expected} among {self.published[-20:]}"
        )

    def wait_for_published_with_id(self, expected: tuple[int, int]) -> None:
        wait_until(
            lambda: expected in list(self.producer.published_with_id), SECONDS, f"{expected} with the topic's id"
        )

    def stop(self) -> None:
        """End the processor, and raise what it died of."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._processor.signal_shutdown()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the leader did not end"
        if self._error is not None:
            raise self._error

    def close_producer(self) -> None:
        """Give what is in flight no time to arrive."""
        self.producer.close()

    def __enter__(self) -> Leader:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.close_producer()

    def _run(self) -> None:
        try:
            self._processor.run()
        except BaseException as error:
            self._error = error


def reports(events: str, group: str, offsets: Mapping[int, int]) -> dict[str, int]:
    """As `CommitLog.newest` has them."""
    return {f"{events}:{partition}:{group}": offset for partition, offset in offsets.items()}


def all_at(partitions: Iterable[int], offset: int) -> dict[int, int]:
    return dict.fromkeys(partitions, offset)
