r"""A leader: it works on each event of a topic, commits it, and publishes on the commit log what it has committed.

    python examples/leader.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group snuba-consumers --commit-log-topic snuba-commit-log \
        --handler my_module:my_function

KAFKA is a broker's address, such as `examples/broker.py` prints.

SIGTERM and Ctrl-C end it cleanly: the last commits are published. The second one ends it at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.healthcheck import Healthcheck
from arroyo.types import Commit, Partition, Topic
from runner import (
    Handler,
    Shutdown,
    add_consumer_flags,
    add_handler_flag,
    call,
    close_producer,
    consumer_settings,
    do_nothing,
    load_handler,
    run_and_report,
    shutdown_signals,
    wait_for_brokers,
)

from arroyo_sync import CommitLogPublisher, log_if_refused, raise_if_refused


class LeaderFactory(ProcessingStrategyFactory[KafkaPayload]):
    """The handler, then the publisher's step where ``CommitOffsets`` would stand. Owns the producer."""

    def __init__(
        self,
        producer: KafkaProducer,
        commit_log_topic: str,
        consumer_group: str,
        handler: Handler,
        healthcheck_file_path: str | None,
    ) -> None:
        self._producer = producer
        self._commit_log = Topic(commit_log_topic)
        self._publisher = CommitLogPublisher(producer, self._commit_log, consumer_group)
        self._handler = handler
        self._healthcheck_file_path = healthcheck_file_path

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        publish = self._publisher.step(commit, partitions)
        strategy: ProcessingStrategy[Any] = RunTask(call(self._handler), publish)
        if self._healthcheck_file_path is not None:
            strategy = Healthcheck(self._healthcheck_file_path, strategy)
        return strategy

    def shutdown(self) -> None:
        close_producer(self._producer, f"The last commits for {self._commit_log.name}")


def run_leader(arguments: Sequence[str] | None = None) -> int:
    """Flags, signals, handler. Returns the exit status: 0 after a clean end, 1 after an error, 2 for wrong flags."""
    parser = _parser()
    options = parser.parse_args(arguments)
    handler = load_handler(parser, options.handler, do_nothing)

    def run(shutdown: Shutdown) -> None:
        settings = consumer_settings(options)
        if not wait_for_brokers(settings, shutdown):
            return
        producer = KafkaProducer(producer_settings(options.bootstrap_servers))
        factory = LeaderFactory(
            producer, options.commit_log_topic, options.consumer_group, handler, options.healthcheck_file_path
        )
        consumer = KafkaConsumer({**settings, "error_cb": raise_if_refused})
        processor = StreamProcessor(consumer, Topic(options.topic), factory, join_timeout=options.join_timeout)
        shutdown.watch(processor)
        processor.run()

    with shutdown_signals() as shutdown:
        return run_and_report(parser.prog, lambda: run(shutdown))


def producer_settings(bootstrap_servers: str) -> dict[str, Any]:
    """Settings of the producer of the commit log.

    A record that the brokers don't confirm is given up after ten seconds, and the newest offset is published instead.
    With librdkafka's five minutes, followers would wait that long for a record that can't arrive, for instance since
    the commit log was created again meanwhile.
    """
    return {"bootstrap.servers": bootstrap_servers, "message.timeout.ms": 10_000, "error_cb": log_if_refused}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Work on each event, commit it, and publish the commit for followers.")
    add_consumer_flags(parser)
    parser.add_argument("--commit-log-topic", required=True, metavar="TOPIC", help="where to publish the commits")
    add_handler_flag(parser, default="do nothing")
    return parser


if __name__ == "__main__":
    sys.exit(run_leader())
