"""A leader that publishes as Snuba's consumer does, and not as ours.

Arroyo's codec and nothing beside it: no topic's id, no report at the start, no heartbeat; and since a pool of threads
publishes, the records of one partition may arrive out of order. Its last one is its newest: what would correct an older
one in Snuba is the next batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import Any

from arroyo.backends.kafka import KafkaPayload, KafkaProducer
from arroyo.backends.kafka.commit import CommitCodec
from arroyo.commit import Commit as CommitData
from arroyo.processing.strategies import CommitOffsets
from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.types import FilteredPayload, Message, Partition, Topic

GATHERED = 3
SETTLE_SECONDS = 0.1


class PublishAsSnuba(ProcessingStrategy[FilteredPayload | KafkaPayload]):
    """Commits as `CommitOffsets` does, and publishes some records together, shuffled.

    A partition's last records are published soon after, however busy the others are: they are committed.
    """

    def __init__(self, commit: Any, producer: KafkaProducer, commit_log: Topic, group: str) -> None:
        self._step = CommitOffsets(commit)
        self._producer = producer
        self._commit_log = commit_log
        self._group = group
        self._random = Random()
        self._gathered: dict[Partition, list[tuple[int, datetime]]] = {}
        self._stale: dict[Partition, tuple[int, datetime]] = {}
        """Where the record that was published last isn't the newest: that one."""
        self._moved_at: dict[Partition, float] = {}
        """When a partition of which something may be gathered or stale had its last message."""

    def submit(self, message: Message[FilteredPayload | KafkaPayload]) -> None:
        self._step.submit(message)
        for partition, offset in message.committable.items():
            self._moved_at[partition] = time.monotonic()
            gathered = self._gathered.setdefault(partition, [])
            gathered.append((offset, message.timestamp or datetime.now()))
            if len(gathered) >= GATHERED:
                self._publish_gathered(partition)

    def poll(self) -> None:
        self._step.poll()
        now = time.monotonic()
        for partition in [each for each, moved_at in self._moved_at.items() if now - moved_at > SETTLE_SECONDS]:
            self._settle(partition)

    def close(self) -> None:
        self._step.close()

    def join(self, timeout: float | None = None) -> None:
        self._step.join(timeout)
        for partition in list(self._moved_at):
            self._settle(partition)

    def terminate(self) -> None:
        self._step.terminate()

    def _publish_gathered(self, partition: Partition) -> None:
        gathered = self._gathered.pop(partition)
        shuffled = self._random.sample(gathered, len(gathered))
        for offset, timestamp in shuffled:
            self._publish(partition, offset, timestamp)
        self._stale.pop(partition, None)
        if shuffled[-1] != max(gathered):
            self._stale[partition] = max(gathered)

    def _settle(self, partition: Partition) -> None:
        del self._moved_at[partition]
        if partition in self._gathered:
            self._publish_gathered(partition)
        if partition in self._stale:
            self._publish(partition, *self._stale.pop(partition))

    def _publish(self, partition: Partition, offset: int, timestamp: datetime) -> None:
        commit = CommitData(self._group, partition, offset, timestamp.timestamp(), None)
        self._producer.produce(self._commit_log, CommitCodec().encode(commit))


class SnubaPublisher:
    """In place of the example's ``CommitLogPublisher``."""

    def __init__(self, producer: KafkaProducer, commit_log: Topic, group: str) -> None:
        self._arguments = producer, commit_log, group

    def step(self, commit: Any, partitions: Mapping[Partition, int]) -> PublishAsSnuba:
        return PublishAsSnuba(commit, *self._arguments)
