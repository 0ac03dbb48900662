"""A source of remote offsets without its Kafka: the reader's bookkeeping alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from arroyo_sync import HighWatermarks, RemoteOffsetSource, SynchronizedPartitionStateManager
from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.source import LeaderOffset, SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets

FAR = 10**9
"""Where every partition ends: beyond all that is published."""


class BookkeepingSource(RemoteOffsetSource):
    """What the leaders publish is given to `publish`. What an assignment asks the brokers is answered at once."""

    def __init__(self, groups: Iterable[str], topic: str) -> None:
        self.leaders = LeaderOffsets(groups)
        self.leaders.enable()
        self._topic = topic
        self._log_offset = 0

    def publish(self, group: str, offsets: Iterable[tuple[int, int]]) -> None:
        """One commit record for each partition and offset."""
        reports = []
        for partition, offset in offsets:
            self._log_offset += 1
            reports.append(CommitReport((self._topic, partition), group, offset, 1, 0, self._log_offset))
        self.leaders.apply(reports, 0.0)

    # The gate's side.

    @property
    def unverified(self) -> Mapping[PartitionKey, int]:
        return self.leaders.unverified

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        self.leaders.attach(manager)

    def check(self) -> None:
        pass

    def stop(self, timeout: float) -> None:
        pass

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        self.leaders.assign(dict.fromkeys(positions))
        question = self.leaders.begin_question(positions)
        self.leaders.apply_answers(dict.fromkeys(positions, PartitionRange(0, FAR)), question, {0: 0})

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        self.leaders.revoke(partitions)

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        self.leaders.received((topic, partition), next_offset)

    # For people.

    @property
    def groups(self) -> Collection[str]:
        return self.leaders.groups

    def death(self) -> SourceDied | None:
        return None

    def statistics(self) -> SourceStatistics:
        reported = self.leaders.reported
        return SourceStatistics(ready=True, alive=True, unverified=len(self.unverified), groups_reported=reported)

    def published(
        self, partitions: Collection[PartitionKey] | None = None
    ) -> Mapping[PartitionKey, Mapping[str, LeaderOffset]]:
        return self.leaders.published(partitions)

    def rejected(self) -> Collection[PartitionKey]:
        return self.leaders.rejected()
