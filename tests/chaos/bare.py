"""A consumer without a gate, to be seen beside a follower: Arroyo's own, with the handler and a commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import runner
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition, Topic

from tests.chaos import handlers


class _BareFactory(ProcessingStrategyFactory[KafkaPayload]):
    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        handlers.begin_assignment({partition.index: offset for partition, offset in partitions.items()})
        step: ProcessingStrategy[Any] = RunTask(runner.call(handlers.count), CommitOffsets(commit))
        return step


def run(settings: Mapping[str, Any]) -> int:
    """The exit status."""
    consumer = {
        "bootstrap.servers": settings["bootstrap_servers"],
        "group.id": settings["group"],
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        **settings["consumer"],
    }
    with runner.shutdown_signals() as shutdown:
        processor = StreamProcessor(KafkaConsumer(consumer), Topic(settings["topic"]), _BareFactory())
        shutdown.watch(processor)
        processor.run()
    return 0
