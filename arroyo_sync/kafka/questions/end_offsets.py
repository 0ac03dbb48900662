"""Where partitions end, as the brokers said last."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaError

from arroyo_sync.core.source import ENDS_AT_ONCE
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import Asker

LATE_ANSWER_SECONDS = 5.0
"""How long a broker may take that nobody waits for: what it tells late is there for the next time."""


class LastEndOffsets:
    """Asks the brokers where partitions end, and keeps what each said last.

    At most `ENDS_AT_ONCE` are in one question. More of them take turns, so that what it costs doesn't grow with them.

    Threads: one asks. What is kept is written by the asker's threads, under the lock.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._turn = 0
        self._changed = threading.Condition()
        self._offsets: dict[PartitionKey, int] = {}

    def ask(self, partitions: Collection[PartitionKey], timeout: float) -> dict[PartitionKey, int]:
        """Where the partitions end now, or where they ended when their broker answered last.

        Blocks until all brokers have answered, for at most ``timeout`` seconds. Partitions of which no broker ever told
        are missing, and those that aren't among these ones are forgotten.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        asked = self._next(list(partitions))
        pending = set(asked)

        def on_answer(answers: Mapping[PartitionKey, int | KafkaError]) -> None:
            with self._changed:
                pending.difference_update(answers)
                self._offsets.update((key, end) for key, end in answers.items() if isinstance(end, int))
                self._changed.notify_all()

        self._asker.ask_end_offsets(asked, max(timeout, LATE_ANSWER_SECONDS), on_answer)
        with self._changed:
            self._changed.wait_for(lambda: not pending, timeout)
            self._offsets = {key: self._offsets[key] for key in partitions if key in self._offsets}
            return dict(self._offsets)

    def _next(self, partitions: list[PartitionKey]) -> list[PartitionKey]:
        """Those whose turn it is."""
        if len(partitions) <= ENDS_AT_ONCE:
            return partitions
        begin = self._turn % len(partitions)
        self._turn = begin + ENDS_AT_ONCE
        return (partitions[begin:] + partitions[:begin])[:ENDS_AT_ONCE]
