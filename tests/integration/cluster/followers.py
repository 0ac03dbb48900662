"""Followers in threads of the test's process: real consumers of one group, behind gates that the test opens by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.dlq import DlqPolicy
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic
from confluent_kafka import Producer

from arroyo_sync.core.source import RemoteOffsetSource
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.testing import ManualSource
from tests.integration.cluster.waiting import wait_until
from tests.support.passing_step import PassingStep

PROTOCOLS: dict[str, dict[str, Any]] = {
    "eager": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
    "kip848": {"group.protocol": "consumer"},
}
"""The two group protocols under which the gate works, with settings that make rebalances quick."""

PATIENT: dict[str, dict[str, Any]] = {"eager": {"session.timeout.ms": 45_000}, "kip848": {}}
"""By protocol, what keeps a member's partitions while its process, or a broker, stands still for some seconds. Where a
test ends a member with no warning, it is missed later for it. Under KIP-848 the brokers say how long a member may be
silent."""


def consumer_settings(bootstrap_servers: str, group: str, protocol: str) -> dict[str, Any]:
    """Settings of a follower's consumer, as the README recommends them."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "queued.min.messages": 1000,
        "fetch.queue.backoff.ms": 10,
        "max.partition.fetch.bytes": 300_000,
        "topic.metadata.refresh.interval.ms": 1000,
        **PROTOCOLS[protocol],
    }


def patient_settings(bootstrap_servers: str, group: str, protocol: str) -> dict[str, Any]:
    """The same, of a member that nobody may miss (`PATIENT`)."""
    return {**consumer_settings(bootstrap_servers, group, protocol), **PATIENT[protocol]}


def produce_numbered(bootstrap_servers: str, topic: str, partitions: Iterable[int], count: int) -> None:
    """Write ``count`` messages to each of these partitions; its value is its offset, if the topic was empty."""
    partitions = list(partitions)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "queue.buffering.max.messages": 10**6})
    for number in range(count):
        for partition in partitions:
            producer.produce(topic, str(number).encode(), partition=partition)
    assert producer.flush(30) == 0


class _Recorder(PassingStep):
    """Notes what arrives, then commits it."""

    def __init__(self, follower: Follower, commit: Commit) -> None:
        super().__init__(CommitOffsets(commit))
        self._follower = follower
        self._deliveries = follower.deliveries[-1]

    def submit(self, message: Message[KafkaPayload]) -> None:
        if self._follower.is_blocked:
            raise MessageRejected
        assert isinstance(message.value, BrokerValue)
        time.sleep(self._follower.seconds_a_message)
        self._deliveries.append((message.value.partition.index, message.value.offset))
        super().submit(message)

    def join(self, timeout: float | None = None) -> None:
        self._follower.join_timeouts.append(timeout)
        super().join(timeout)


class Follower(ProcessingStrategyFactory[KafkaPayload]):
    """One member of a group: a StreamProcessor on a thread of its own, behind a gate of its own."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        topic: str,
        *,
        wrapped: bool = True,
        limits: HoldLimits | None = None,
        slice_seconds: float = 0.005,
        dlq_policy: DlqPolicy[KafkaPayload] | None = None,
        source: RemoteOffsetSource | None = None,
    ) -> None:
        self.deliveries: list[list[tuple[int, int]]] = []
        """Per assignment, partition and offset of every message that came through the gate, in the order of arrival."""
        self.assignments: list[dict[int, int]] = []
        """The partitions of every strategy that was made, with the offsets that it was told."""
        self.is_blocked = False
        """While this is set, the step behind the gate rejects every message."""
        self.seconds_a_message = 0.0
        """How long that step works on a message."""
        self.join_timeouts: list[float | None] = []
        """What that step was joined with, once an assignment."""
        self.error: BaseException | None = None
        self.source = ManualSource()
        """Moves the gate by hand, unless another ``source`` was given."""
        self.factory = SynchronizedStrategyFactory(
            self, source or self.source, limits=limits, slice_seconds=slice_seconds
        )
        consumer = KafkaConsumer(settings)
        self.flow = self.factory.flow_control(consumer) if wrapped else None
        self.processor = StreamProcessor(self.flow or consumer, Topic(topic), self.factory, dlq_policy=dlq_policy)
        self._topic = topic
        self._thread = threading.Thread(target=self._run, name=f"follower-{topic}", daemon=True)

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.assignments.append({partition.index: offset for partition, offset in partitions.items()})
        self.deliveries.append([])
        return _Recorder(self, commit)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the processor, and raise what it died of."""
        self.processor.signal_shutdown()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the processor did not end"
        if self.error is not None:
            raise self.error

    def release(self, partitions: Iterable[int], remote_offset: int) -> None:
        for partition in partitions:
            self.source.set_remote_offset(self._topic, partition, remote_offset)

    def wait_until_ended(self, timeout: float = 60) -> BaseException | None:
        """What the processor died of."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the processor did not end"
        return self.error

    @property
    def received(self) -> list[tuple[int, int]]:
        return [each for delivered in list(self.deliveries) for each in list(delivered)]

    @property
    def held(self) -> int:
        return sum(self.factory.held.values())

    @property
    def assigned(self) -> set[int]:
        return set(self.assignments[-1]) if self.assignments else set()

    def wait_until_received(self, count: int, timeout: float = 120) -> None:
        wait_until(lambda: len(self.received) >= count, timeout, lambda: f"{len(self.received)} of {count} received")

    def _run(self) -> None:
        try:
            self.processor.run()
        except BaseException as exc:
            self.error = exc


@contextmanager
def running(follower: Follower) -> Iterator[Follower]:
    """Starts it, and stops it in the end."""
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()
