r"""Several leader groups: an event is handed on when the slowest of them has committed it, and says which that is.

    python examples/several_leaders.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group post-process-forwarder --synchronize-commit-log-topic snuba-commit-log \
        --synchronize-commit-group snuba-consumers --synchronize-commit-group snuba-transactions

KAFKA is a broker's address, such as `examples/broker.py` prints. `examples/first_leader.py` can be one of the leaders;
start `examples/leader.py` as the other one, and stop it again, to see what waits.

All groups publish on one commit log; it may hold others too, which are passed over. A group that has published nothing
yet keeps its partitions closed. Once a second each partition that waits is a line on standard error, with every group's
next offset. SIGTERM and Ctrl-C end it cleanly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.types import Topic
from post_process_forwarder import ForwarderFactory
from runner import (
    add_commit_log_flag,
    add_consumer_flags,
    add_handler_flag,
    add_leader_groups_flag,
    commit_log_of,
    consumer_settings,
    every_second,
    load_handler,
    print_event,
    run_processor,
)

from arroyo_sync import LeaderSnapshot, Snapshot, SynchronizedStrategyFactory


def how_far(leader: LeaderSnapshot) -> str:
    """A leader group and the next offset that it would read."""
    if leader.published_offset is None:
        return f"{leader.group} has published nothing"
    return f"{leader.group} at {leader.published_offset}"


def waits(snapshot: Snapshot) -> list[str]:
    """A line for each partition in which events wait for a leader."""
    lines = []
    for each in snapshot.partitions:
        if each.blocked_by is not None:
            groups = ", ".join(how_far(leader) for leader in each.leaders)
            lines.append(f"{each.topic}:{each.partition} {each.gated_lag} wait for {each.blocked_by.group}: {groups}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Hand on each event once the slowest leader group has committed it.")
    add_consumer_flags(parser)
    add_commit_log_flag(parser)
    add_leader_groups_flag(parser)
    add_handler_flag(parser, default="print a line")
    options = parser.parse_args(arguments)
    handler = load_handler(parser, options.handler, print_event)
    factory: SynchronizedStrategyFactory[KafkaPayload] | None = None

    def build() -> StreamProcessor[KafkaPayload]:
        nonlocal factory
        factory = SynchronizedStrategyFactory(
            ForwarderFactory(handler, options.healthcheck_file_path), commit_log_of(options)
        )
        consumer = factory.consumer(consumer_settings(options))
        return StreamProcessor(consumer, Topic(options.topic), factory, join_timeout=options.join_timeout)

    def report() -> None:
        if factory is not None:
            for line in waits(factory.snapshot()):
                print(f"{line}\n", end="", file=sys.stderr, flush=True)

    with every_second(report):
        return run_processor(parser.prog, build)


if __name__ == "__main__":
    sys.exit(main())
