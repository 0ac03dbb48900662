"""The shortest leader: it works on each event, commits it, and publishes on the commit log what it has committed.

    pip install .                                          in a checkout of arroyo_sync
    KAFKA=localhost:9092 python examples/first_leader.py   on your Kafka, or on that of examples/broker.py

Replace `store` by your work. SIGTERM and Ctrl-C end it cleanly: the last offsets are published.
"""

import logging
import os
import signal
from collections.abc import Mapping

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import ProcessingStrategy, ProcessingStrategyFactory, RunTask
from arroyo.types import Commit, Message, Partition, Topic

from arroyo_sync import CommitLogPublisher, log_if_refused, raise_if_refused

KAFKA = {"bootstrap.servers": os.environ.get("KAFKA", "localhost:9092")}
GROUP = "snuba-consumers"
logger = logging.getLogger(__name__)


def store(message: Message[KafkaPayload]) -> None:
    print("stored", message.payload.value.decode(), flush=True)


class LeaderFactory(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self, publisher: CommitLogPublisher) -> None:
        self._publisher = publisher

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return RunTask(store, self._publisher.step(commit, partitions))  # where CommitOffsets(commit) would stand


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    # Followers wait for a record that can't arrive as long as the producer tries: ten seconds, not five minutes.
    producer = KafkaProducer({**KAFKA, "message.timeout.ms": 10_000, "error_cb": log_if_refused})
    publisher = CommitLogPublisher(producer, Topic("snuba-commit-log"), GROUP)
    consumer = KafkaConsumer(
        {
            **KAFKA,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "error_cb": raise_if_refused,  # a wrong password is an error, not silence
        }
    )
    processor = StreamProcessor(consumer, Topic("events"), LeaderFactory(publisher), join_timeout=10)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: processor.signal_shutdown())
    processor.run()
    try:
        producer.close().result(10)
    except Exception as error:  # as if its brokers are away, or its thread has ended: the leader has ended well
        logger.warning("the last reports may not have arrived: %r", error)


if __name__ == "__main__":
    main()
