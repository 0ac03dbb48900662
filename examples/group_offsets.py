r"""A leader without a commit log: the follower asks the brokers what the leader's group has committed.

    python examples/group_offsets.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group post-process-forwarder --synchronize-commit-group snuba-consumers

KAFKA is a broker's address, such as `examples/broker.py` prints; `examples/first_leader.py` can be the leader.

The leader is any consumer that commits to Kafka; it needs no change. An event is handed on later than with a commit
log: by the leader's commit policy, a second or so, and by up to ``--interval-seconds``. SIGTERM and Ctrl-C end it
cleanly.
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
    add_consumer_flags,
    add_handler_flag,
    add_leader_groups_flag,
    consumer_settings,
    load_handler,
    print_event,
    run_processor,
    seconds,
)

from arroyo_sync import GroupOffsetsSource, SynchronizedStrategyFactory


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Hand on each event once the leader groups' commits on Kafka cover it."
    )
    add_consumer_flags(parser)
    add_leader_groups_flag(parser)
    parser.add_argument(
        "--interval-seconds", type=seconds, default=0.5, help="how often to ask the brokers (default: 0.5)"
    )
    add_handler_flag(parser, default="print a line")
    options = parser.parse_args(arguments)
    handler = load_handler(parser, options.handler, print_event)

    def build() -> StreamProcessor[KafkaPayload]:
        settings = consumer_settings(options)
        source = GroupOffsetsSource(
            settings, groups=options.synchronize_commit_group, interval_seconds=options.interval_seconds
        )
        factory = SynchronizedStrategyFactory(ForwarderFactory(handler, options.healthcheck_file_path), source)
        consumer = factory.consumer(settings)
        return StreamProcessor(consumer, Topic(options.topic), factory, join_timeout=options.join_timeout)

    return run_processor(parser.prog, build)


if __name__ == "__main__":
    sys.exit(main())
