"""The floor: a bare confluent-kafka consumer doing the least that could count.

For latency it reads the commit log, since nothing can be released before its record has arrived.
"""

from __future__ import annotations

import threading
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.benchmarks.contenders.child import Contender, emit, main


class Floor(Contender):
    """Polls the commit log's one partition and notes when each record came."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._stop = threading.Event()

    def run(self) -> None:
        """See `Contender`."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.config["bootstrap_servers"],
                "group.id": self.config["group_id"],
                "enable.auto.commit": False,
                **self.config.get("floor_consumer", {}),
            }
        )
        consumer.assign([TopicPartition(self.config["commit_log_topic"], 0, OFFSET_BEGINNING)])
        emit("ready")
        record = self.recorder.record
        poll = consumer.poll
        while not self._stop.is_set():
            message = poll(0.1)
            if message is None:
                continue
            if message.error():
                raise RuntimeError(str(message.error()))
            offset = message.offset()
            assert offset is not None
            record(0, offset)
        consumer.close()

    def stop(self) -> None:
        """See `Contender`."""
        self._stop.set()


if __name__ == "__main__":
    main(Floor)
