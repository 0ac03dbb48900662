r"""Batches behind the gate: what the leaders have committed is written many at a time.

    python examples/batching.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group batch-writer --batch-size 100 --batch-seconds 1 \
        --synchronize-commit-log-topic snuba-commit-log --synchronize-commit-group snuba-consumers

KAFKA is a broker's address, such as `examples/broker.py` prints; `examples/first_leader.py` can be the leader.

The gate stands first and sees single messages; batching begins behind it. So no batch holds a message that a leader
hasn't committed, and a batch waits for its last message no longer than ``--batch-seconds``. A batch is committed as a
whole once it is written. At SIGTERM and Ctrl-C the batch that has begun is written too.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import BatchStep, CommitOffsets, RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.batching import ValuesBatch
from arroyo.types import BrokerValue, Commit, FilteredPayload, Message, Partition, Topic
from runner import (
    add_commit_log_flag,
    add_consumer_flags,
    add_leader_groups_flag,
    commit_log_of,
    consumer_settings,
    positive_int,
    run_processor,
    seconds,
)

from arroyo_sync import SynchronizedStrategyFactory

Batch = ValuesBatch[KafkaPayload]


class BatchingFactory(ProcessingStrategyFactory[KafkaPayload]):
    """What stands behind the gate: collect a batch, write it, commit it."""

    def __init__(self, batch_size: int, batch_seconds: float) -> None:
        self._batch_size = batch_size
        self._batch_seconds = batch_seconds

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        write = RunTask(write_batch, CommitOffsets(commit))
        return BatchStep[KafkaPayload](self._batch_size, self._batch_seconds, write)


def write_batch(message: Message[FilteredPayload | Batch]) -> FilteredPayload | Batch:
    """Where an insert into a database would stand. If it raises, the processor ends, and the batch is read again."""
    batch = message.payload
    if not isinstance(batch, FilteredPayload):
        offsets: dict[int, list[int]] = defaultdict(list)
        for value in batch:
            if isinstance(value, BrokerValue):
                offsets[value.partition.index].append(value.offset)
        ranges = ", ".join(f"{index}:{min(each)}-{max(each)}" for index, each in sorted(offsets.items()))
        print(f"batch of {len(batch)}: {ranges}", flush=True)
    return batch


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write batches of events that every leader group has committed.")
    add_consumer_flags(parser)
    add_commit_log_flag(parser)
    add_leader_groups_flag(parser)
    parser.add_argument("--batch-size", type=positive_int, default=100, help="events at the most (default: 100)")
    parser.add_argument(
        "--batch-seconds", type=seconds, default=1.0, help="for how long to collect at the most (default: 1)"
    )
    options = parser.parse_args(arguments)

    def build() -> StreamProcessor[KafkaPayload]:
        factory = SynchronizedStrategyFactory(
            BatchingFactory(options.batch_size, options.batch_seconds), commit_log_of(options)
        )
        consumer = factory.consumer(consumer_settings(options))
        return StreamProcessor(consumer, Topic(options.topic), factory, join_timeout=options.join_timeout)

    return run_processor(parser.prog, build)


if __name__ == "__main__":
    sys.exit(main())
