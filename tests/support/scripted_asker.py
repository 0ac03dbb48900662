"""The asker of a source without brokers: it answers at once what its script says, and makes no client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.kafka.questions.committed_offsets import Commits
from arroyo_sync.kafka.questions.time_lookups import FoundOffset
from arroyo_sync.leaders.offset_source import OffsetSource
from tests.support.assigned import FAR
from tests.support.fakes import Clock


class ScriptedAsker:
    """Stands in for `Asker`, whose arguments it keeps. Put it there before a source is made."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        on_error: Callable[[KafkaError], None],
        *,
        advice: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configuration = configuration
        self.on_error = on_error
        self.told: list[KafkaError] = []
        """What its clients are told of, and tell when they are polled."""
        self.advice = advice
        self.clock = clock
        self.unreachable: list[KafkaError] = []
        """Why no broker is reached, one an attempt, which takes all its time; then one is reached."""
        self.before_reach: Callable[[], None] = lambda: None
        self.committed: dict[str, dict[PartitionKey, int | KafkaError]] = {}
        """What each group has committed, or why that can't be told."""
        self.slow: set[str] = set()
        """The groups whose answers wait in `late`."""
        self.late: list[Callable[[], None]] = []
        self.questions: list[tuple[str, object]] = []
        """What was asked, in short, and about what."""
        self.is_asked = threading.Event()
        """Set when there is a question about a group's commits, and it is answered or in `late`."""
        self.cluster_id: str | None = None
        self.ranges: dict[PartitionKey, PartitionRange | KafkaError] = {}
        self.other_ranges = PartitionRange(0, FAR)
        """That of the partitions that aren't in `ranges`."""
        self.first_since: dict[PartitionKey, int] = {}
        """Where the records of the last while begin."""
        self.log_ends: dict[int, int | KafkaError] = {0: 0, 1: 0}
        self.topic_id = "first"
        self.stop_timeouts: list[float] = []
        self.while_stopping: Callable[[], None] = lambda: None
        self.forgotten: list[PartitionKey] = []

    def poll(self) -> None:
        while self.told:
            self.on_error(self.told.pop())

    def asked(self, what: str) -> list[Any]:
        """What it was asked about, of the questions of one kind."""
        return [about for question, about in self.questions if question == what]

    def forget(self, partitions: Collection[PartitionKey]) -> None:
        self.forgotten += partitions

    def reach(self, timeout: float) -> None:
        self.before_reach()
        if self.unreachable:
            assert isinstance(self.clock, Clock)
            self.clock.now += timeout
            raise KafkaException(self.unreachable.pop(0))

    def ask_committed(
        self, group: str, partitions: Collection[PartitionKey], timeout: float, on_answer: Callable[[Commits], None]
    ) -> None:
        self.questions.append(("commits", (group, list(partitions), timeout)))
        committed = self.committed.get(group, {})
        answer = {key: committed.get(key) for key in partitions}
        if group in self.slow:
            self.late.append(lambda: on_answer(answer))
        else:
            on_answer(answer)
        self.is_asked.set()

    def ask_ranges(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, PartitionRange | KafkaError]], None],
        *,
        with_first_messages: bool,
    ) -> None:
        on_answer({key: self._range(key) for key in partitions})

    def ask_offsets_for_time(
        self,
        partitions: Collection[PartitionKey],
        timestamp_ms: int,
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, FoundOffset | KafkaError]], None],
    ) -> None:
        self.questions.append(("offsets since", (list(partitions), timestamp_ms)))
        on_answer({key: FoundOffset(self.first_since.get(key), None) for key in partitions})

    def ask_end_offsets(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, int | KafkaError]], None],
    ) -> None:
        self.questions.append(("ends", partitions))
        ranges = {key: self._range(key) for key in partitions}
        on_answer({key: each if isinstance(each, KafkaError) else each.end for key, each in ranges.items()})

    def ask_topic_ends(
        self, topic: str, timeout: float, on_answer: Callable[[Mapping[int, int | KafkaError]], None]
    ) -> None:
        self.questions.append(("all ends", (topic, timeout)))
        on_answer(self.log_ends)

    def ask_topic_ids(
        self, topics: Collection[str], timeout: float, on_answer: Callable[[Mapping[str, str | KafkaError]], None]
    ) -> None:
        self.questions.append(("ids", sorted(topics)))
        on_answer(dict.fromkeys(topics, self.topic_id))

    def stop(self, timeout: float) -> None:
        self.stop_timeouts.append(timeout)
        self.while_stopping()

    def _range(self, key: PartitionKey) -> PartitionRange | KafkaError:
        return self.ranges.get(key, self.other_ranges)


def asker_of(source: OffsetSource) -> ScriptedAsker:
    """The asker of a source that was made with a scripted one."""
    return cast(ScriptedAsker, source._asker)
