"""Looks offsets up by time, which may take a broker seconds where the messages lie in tiered storage.

Guarantees
    - No other question waits for a look-up: a broker answers one request of a connection after the other, so look-ups
      have a client of their own.
    - A slow partition delays the look-ups of others for some seconds, once: a broker answers a request when it has
      looked up all partitions of it, so those of a request that wasn't answered in time are asked about in smaller
      ones, after all others, and in the end each in one of its own.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import KafkaError
from confluent_kafka.admin import ListOffsetsResultInfo, OffsetSpec

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.cluster_client import ClusterClient, OnOffsets

ALONE_SECONDS = 10.0
"""How long a look-up by time may take of a partition that has a request of its own."""
SPLIT = 10
"""By how much smaller the next requests are than one that wasn't answered in time."""

V = TypeVar("V")


class FoundOffset(NamedTuple):
    """What a look-up by time finds."""

    offset: int | None = None
    """``None``: nothing is that late."""
    timestamp_ms: int | None = None


class TimeLookups:
    """See the module's docstring.

    :param client: which nobody else uses.
    """

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        # Of partitions that weren't answered in time: how many may be in one request. Any thread writes it; each entry
        # is written in one step.
        self._sizes: dict[PartitionKey, int] = {}

    def ask(
        self,
        partitions: Collection[PartitionKey],
        timestamp_ms: int,
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, FoundOffset | KafkaError]], None],
    ) -> None:
        """Ask. A partition that is slow by itself has `ALONE_SECONDS` at least."""
        spec = OffsetSpec.for_timestamp(timestamp_ms)

        def take(answers: Mapping[PartitionKey, FoundOffset | KafkaError]) -> None:
            for key, answer in answers.items():
                if not isinstance(answer, KafkaError):
                    self._sizes.pop(key, None)
                elif answer.code() == KafkaError._TIMED_OUT:
                    self._sizes[key] = max(1, len(answers) // SPLIT)
            on_answer(answers)

        for size, group in self._requests(partitions):
            seconds = max(timeout, ALONE_SECONDS) if size == 1 else timeout
            self._client.ask_offsets(group, [spec], seconds, read_each(_found, take))

    def poll(self) -> None:
        """As the client's."""
        self._client.poll()

    def stop(self, timeout: float) -> None:
        """As the client's."""
        self._client.stop(timeout)

    def _requests(self, partitions: Collection[PartitionKey]) -> Iterator[tuple[int | None, list[PartitionKey]]]:
        """What to ask about in one request of each broker, the slowest last, and how many that may be at most."""
        by_size: dict[int | None, list[PartitionKey]] = {None: []}
        for key in partitions:
            by_size.setdefault(self._sizes.get(key), []).append(key)
        if fast := by_size.pop(None):
            yield None, fast
        for size, slow in sorted(by_size.items(), key=lambda item: -(item[0] or 0)):
            step = size or 1
            for begin in range(0, len(slow), step):
                yield size, slow[begin : begin + step]


def read_each(
    read: Callable[[Sequence[ListOffsetsResultInfo]], V], on_answer: Callable[[Mapping[PartitionKey, Any]], None]
) -> OnOffsets:
    """``on_answer``, to be told for each partition of what its answers mean, or of the first error among them."""

    def read_one(answers: Sequence[ListOffsetsResultInfo | KafkaError] | KafkaError) -> V | KafkaError:
        if isinstance(answers, KafkaError):
            return answers
        infos: list[ListOffsetsResultInfo] = []
        for answer in answers:
            if isinstance(answer, KafkaError):
                return answer
            infos.append(answer)
        return read(infos)

    return lambda answers: on_answer({key: read_one(each) for key, each in answers.items()})


def _found(infos: Sequence[ListOffsetsResultInfo]) -> FoundOffset:
    offset, timestamp_ms = infos[0].offset, infos[0].timestamp
    if offset < 0:
        return FoundOffset()
    # Redpanda has answered -1 for the time of a message that it found.
    return FoundOffset(offset, timestamp_ms if timestamp_ms >= 0 else None)
