"""Where partitions end: as the follower's own client has cached it, and as the brokers said last."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.asker import Asker

QUESTION_SECONDS = 5.0
"""How long a broker may take. Nobody waits for it as long as that: what comes late is there for the next time."""


class KafkaWatermarks:
    """`HighWatermarks` from a consumer's own handle.

    Threads: a confluent-kafka consumer lets in one thread at a time (since 2.16: others wait, and one that polls
    without end may keep them waiting for ever). So this is for the thread that polls the consumer.

    :param consumer: the handle. It is never closed from here.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._is_closed = False

    def cached(self, topic: str, partition: int) -> int | None:
        """The end offset in the last fetch response, ``None`` before the first one or when closed. Never blocks."""
        if self._is_closed:
            return None
        try:
            ends = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        except (KafkaException, RuntimeError):  # the latter: the client was closed
            return None
        return ends[1] if ends is not None and ends[1] >= 0 else None

    def close(self) -> None:
        """Leave the client alone from now on: it is about to be closed."""
        self._is_closed = True


class LastEndOffsets:
    """Asks the brokers where partitions end, and keeps what each said last.

    Threads: any may ask. What is kept is written by the asker's threads, under the lock.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._changed = threading.Condition()
        self._offsets: dict[PartitionKey, int] = {}

    def ask(self, partitions: Collection[PartitionKey], timeout: float) -> dict[PartitionKey, int]:
        """Where the partitions end now, or where they ended when their broker answered last.

        Blocks until all brokers have answered, for at most ``timeout`` seconds. Partitions of which no broker ever told
        are missing, and those that aren't among these ones are forgotten.
        """
        pending = set(partitions)

        def on_answer(answers: Mapping[PartitionKey, int | KafkaError]) -> None:
            with self._changed:
                pending.difference_update(answers)
                self._offsets.update((key, end) for key, end in answers.items() if isinstance(end, int))
                self._changed.notify_all()

        self._asker.ask_end_offsets(partitions, max(timeout, QUESTION_SECONDS), on_answer)
        with self._changed:
            self._changed.wait_for(lambda: not pending, timeout)
            self._offsets = {key: self._offsets[key] for key in partitions if key in self._offsets}
            return dict(self._offsets)
