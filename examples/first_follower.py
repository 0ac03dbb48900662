"""The shortest follower: it prints each event once the leader group has committed it.

    pip install .                                            in a checkout of arroyo_sync
    KAFKA=localhost:9092 python examples/first_follower.py   on your Kafka, or on that of examples/broker.py

Replace `handle` by your work, or `ForwarderFactory` by the factory that you have. SIGTERM and Ctrl-C end it cleanly.
"""

import logging
import os
import signal
from collections.abc import Mapping

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory, RunTask
from arroyo.types import Commit, Message, Partition, Topic

from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory

KAFKA = {"bootstrap.servers": os.environ.get("KAFKA", "localhost:9092")}  # and any other settings of librdkafka


def handle(message: Message[KafkaPayload]) -> None:
    print("got", message.payload.value.decode(), flush=True)


class ForwarderFactory(ProcessingStrategyFactory[KafkaPayload]):
    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return RunTask(handle, CommitOffsets(commit))


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    commit_log = CommitLogConsumer(KAFKA, topic=Topic("snuba-commit-log"), groups={"snuba-consumers"})
    factory = SynchronizedStrategyFactory(ForwarderFactory(), commit_log)  # the outermost of your factories
    consumer = factory.consumer({**KAFKA, "group.id": "post-process-forwarder", "auto.offset.reset": "earliest"})
    processor = StreamProcessor(consumer, Topic("events"), factory, join_timeout=10)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: processor.signal_shutdown())
    processor.run()


if __name__ == "__main__":
    main()
