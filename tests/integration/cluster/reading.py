"""A commit log on the real broker, and a source that reads it, in few words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from arroyo.types import Topic
from confluent_kafka import KafkaException, Message, Producer

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from arroyo_sync.leaders.offset_source import OffsetSource
from tests.integration.cluster.admin import Kafka
from tests.support.assigned import unassigned_remote

TIMEOUT_SECONDS = 60.0
REMOTE_SECONDS = 90.0
"""For a remote offset to become what it should be: the machine, or a broker, may stand still for seconds meanwhile."""
READY_SECONDS = 120.0
"""To read a whole commit log, which may be hundreds of megabytes on a machine that has much else to do."""
EVENTS = "events"

QUICK: dict[str, Any] = {
    # A test shouldn't wait for minutes until partitions are found, nor for seconds until a broker that is back is met.
    "topic.metadata.refresh.interval.ms": 500,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
}


class CommitLog:
    """Writes a commit log, each record delivered when the call returns."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.kafka = kafka
        self.topic = topic
        self.renew()

    def renew(self) -> None:
        """A client that knows nothing of the topic as it was."""
        self._producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "linger.ms": 0,
                "message.max.bytes": 4 * 2**20,
                **QUICK,
            }
        )

    def publish(
        self,
        offset: int | None,
        partition: int = 0,
        group: str = "g",
        topic: str = EVENTS,
        log_partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """A leader group's commit; ``None``: a tombstone."""
        key, value = encode(CommitRecord(topic, partition, group, offset or 0, time.time()))
        self.write(key, None if offset is None else value, log_partition, timestamp_ms)
        self.flush()

    def write(
        self,
        key: bytes | None,
        value: bytes | None,
        log_partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Any record; delivered at the next `flush`."""
        self._producer.produce(
            self.topic,
            key=key,
            value=value,
            partition=-1 if log_partition is None else log_partition,
            timestamp=timestamp_ms or 0,
            headers=list(headers),
            on_delivery=_raise_failure,
        )
        self._producer.poll(0)

    def flush(self) -> None:
        remaining = self._producer.flush(REMOTE_SECONDS)
        assert remaining == 0, f"{remaining} records weren't delivered"


class Remote:
    """The remote offsets of a source, with all values that they ever had, and a wait for them to be as they should."""

    def __init__(self) -> None:
        self.history: list[tuple[PartitionKey, int | None]] = []
        self.source: OffsetSource | None = None
        self.manager = SynchronizedPartitionStateManager()
        store = self.manager.store_remote_offsets

        def record(offsets: Any) -> None:
            items = list(offsets)
            self.history += items
            store(items)

        self.manager.store_remote_offsets = record  # type: ignore[method-assign]

    def __getitem__(self, partition: int) -> int | None:
        return self.of((EVENTS, partition))

    def of(self, key: PartitionKey) -> int | None:
        """What the manager has; of a partition that isn't assigned, what it would have."""
        if self.source is None or key in self.manager.partitions:
            return self.manager.cell(*key).remote
        return unassigned_remote(self.source._offsets, key)

    def assign(self, source: OffsetSource, partition: int, reach: int, topic: str = EVENTS) -> None:
        """As the gate does; and in place of the brokers it is answered that the partition reaches so far."""
        key = (topic, partition)
        source.assign({key: 0}, None)
        self._answer(source, {key: PartitionRange(0, reach)})

    def _answer(self, source: OffsetSource, answers: Mapping[PartitionKey, PartitionRange]) -> None:
        """Now, and whenever the brokers are asked anew since the commit log may be another one."""
        offsets, ask_anew = source._offsets, source._offsets.ask_anew

        def answer() -> None:
            offsets.apply_answers(answers, offsets.begin_question(answers), {})

        def answer_anew() -> None:
            ask_anew()
            answer()

        offsets.ask_anew = answer_anew  # type: ignore[method-assign]
        answer()

    def receive(self, topic: str, partition: int, next_offset: int, source: OffsetSource) -> None:
        """As the gate does for a message."""
        self.manager.cell(topic, partition).received = next_offset
        if source.unverified.get((topic, partition), next_offset + 1) <= next_offset:
            source.received(topic, partition, next_offset)

    def wait_for(self, expected: int | None, partition: int = 0, topic: str = EVENTS) -> None:
        self.wait_until(lambda: self.of((topic, partition)) == expected, f"{topic}[{partition}] to be {expected}")

    def wait_until(self, is_true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + REMOTE_SECONDS
        while True:
            version = self.manager.version
            if is_true():
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(f"waited for {what}: {dict(self.manager.partitions)}")
            self.manager.wait_for_move(version, 0.02)  # what isn't a remote offset wakes nobody


@contextmanager
def reading(
    kafka: Kafka,
    topic: str,
    *groups: str,
    settings: Mapping[str, Any] | None = None,
    is_ready: bool = True,
    remote: Remote | None = None,
    **arguments: Any,
) -> Iterator[tuple[CommitLogConsumer, Remote]]:
    """A source that reads the commit log, and the remote offsets that it writes."""
    configuration = {"bootstrap.servers": kafka.bootstrap_servers, **QUICK, **(settings or {})}
    source = CommitLogConsumer(configuration, topic=Topic(topic), groups=groups or ("g",), **arguments)
    with running(source, remote, is_ready) as made:
        yield source, made


@contextmanager
def running(source: OffsetSource, remote: Remote | None = None, is_ready: bool = True) -> Iterator[Remote]:
    """Starts a source, waits until it is ready, and stops it; its threads must end."""
    remote = remote or Remote()
    remote.source = source
    source.start(remote.manager)
    try:
        if is_ready:
            source.wait_until_ready(READY_SECONDS)
        yield remote
    finally:
        source.stop(TIMEOUT_SECONDS)
        alive = [thread.name for thread in source._threads if thread.is_alive()]
        assert not alive, f"still running: {alive}"


def _raise_failure(error: object, message: Message) -> None:
    if error is not None:
        raise KafkaException(error)
