r"""A post-process forwarder: each event goes to a handler once every leader group has committed it.

    python examples/post_process_forwarder.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group post-process-forwarder \
        --synchronize-commit-log-topic snuba-commit-log --synchronize-commit-group snuba-consumers \
        --handler my_module:my_function

KAFKA is a broker's address, such as `examples/broker.py` prints; `examples/first_leader.py` can be the leader.

SIGTERM and Ctrl-C end it cleanly: what was released is finished and committed, what is held stays in Kafka.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.healthcheck import Healthcheck
from arroyo.types import Commit, Partition, Topic
from runner import (
    Handler,
    add_commit_log_flag,
    add_consumer_flags,
    add_handler_flag,
    add_leader_groups_flag,
    call,
    consumer_settings,
    load_handler,
    print_event,
    run_and_report,
    shutdown_signals,
)

from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory


class ForwarderFactory(ProcessingStrategyFactory[KafkaPayload]):
    """What stands behind the gate: the handler, then the commit.

    The gate polls this strategy while it waits for a leader, so the healthcheck file is touched then too: it is the
    leader that is ill, and a restart of the follower would not help.
    """

    def __init__(self, handler: Handler, healthcheck_file_path: str | None) -> None:
        self._handler = handler
        self._healthcheck_file_path = healthcheck_file_path

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        strategy: ProcessingStrategy[Any] = RunTask(call(self._handler), CommitOffsets(commit))
        if self._healthcheck_file_path is not None:
            strategy = Healthcheck(self._healthcheck_file_path, strategy)
        return strategy


def run_streaming_consumer(
    settings: Mapping[str, Any],
    topic: str,
    commit_log_topic: str,
    commit_groups: Collection[str],
    factory: ProcessingStrategyFactory[KafkaPayload],
    *,
    join_timeout: float | None = None,
    on_created: Callable[[StreamProcessor[KafkaPayload]], None],
) -> None:
    """Build the three objects, source, factory and consumer, and run the processor until it is told to end.

    :param settings: of the consumer; the commit log is taken to be on the same cluster.
    :param on_created: gets the processor before it runs.
    :raises ArroyoSyncError: a setting is wrong, or the commit log can't be read.
    """
    commit_log = CommitLogConsumer(settings, topic=Topic(commit_log_topic), groups=commit_groups)
    synchronized = SynchronizedStrategyFactory(factory, commit_log)
    consumer = synchronized.consumer(settings)
    processor = StreamProcessor(consumer, Topic(topic), synchronized, join_timeout=join_timeout)
    on_created(processor)
    processor.run()


def run_post_process_forwarder(arguments: Sequence[str] | None = None) -> int:
    """Flags, signals, handler. Returns the exit status: 0 after a clean end, 1 after an error, 2 for wrong flags."""
    parser = _parser()
    options = parser.parse_args(arguments)
    handler = load_handler(parser, options.handler, print_event)
    factory = ForwarderFactory(handler, options.healthcheck_file_path)
    with shutdown_signals() as shutdown:
        return run_and_report(
            parser.prog,
            lambda: run_streaming_consumer(
                consumer_settings(options),
                options.topic,
                options.synchronize_commit_log_topic,
                options.synchronize_commit_group,
                factory,
                join_timeout=options.join_timeout,
                on_created=shutdown.watch,
            ),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hand on each event once every leader group has committed it.")
    add_consumer_flags(parser)
    add_commit_log_flag(parser)
    add_leader_groups_flag(parser)
    add_handler_flag(parser, default="print a line")
    return parser


if __name__ == "__main__":
    sys.exit(run_post_process_forwarder())
