r"""A dead-letter queue behind the gate: an event that isn't JSON goes to a topic of its own, the others go on.

    python examples/dead_letters.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group post-process-forwarder --dead-letter-topic events-dead-letters \
        --synchronize-commit-log-topic snuba-commit-log --synchronize-commit-group snuba-consumers

KAFKA is a broker's address, such as `examples/broker.py` prints; `examples/first_leader.py` can be the leader.
An event that isn't JSON: ``echo '{' | kcat -P -b $KAFKA -t events``.

An invalid event waits for the leaders like any other: it is looked at, and becomes a dead letter, once it is released.
Arroyo keeps a copy of each message until it is committed, of those too that the gate holds, and a limit on that buffer
must cover both; see `BUFFERED`. SIGTERM and Ctrl-C end it cleanly.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from arroyo.backends.kafka import KafkaPayload, KafkaProducer
from arroyo.dlq import DlqPolicy, InvalidMessage, KafkaDlqProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.types import Topic
from post_process_forwarder import ForwarderFactory
from runner import (
    Event,
    add_commit_log_flag,
    add_consumer_flags,
    add_leader_groups_flag,
    close_producer,
    commit_log_of,
    consumer_settings,
    print_event,
    run_processor,
)

from arroyo_sync import HoldLimits, SynchronizedStrategyFactory

LIMITS = HoldLimits(messages=5_000, resume_messages=1_000)
IN_FLIGHT = 1_000
"""More than the steps behind the gate ever hold of a partition, and the one that the processor carries."""
BUFFERED = LIMITS.messages + IN_FLIGHT
"""With less, Arroyo would drop the oldest copies in silence, and an invalid event among them would be lost."""


def handle(event: Event) -> None:
    """Print the event, if it is JSON."""
    try:
        json.loads(event.payload.value)
    except ValueError as error:
        # Not from behind a batch: there it can't be told any more which message it was.
        raise InvalidMessage(event.partition, event.offset, reason=str(error), log_exception=False) from error
    print_event(event)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Hand on released events; what isn't JSON goes to a dead-letter topic."
    )
    add_consumer_flags(parser)
    add_commit_log_flag(parser)
    add_leader_groups_flag(parser)
    parser.add_argument("--dead-letter-topic", required=True, metavar="TOPIC", help="where invalid events go")
    options = parser.parse_args(arguments)
    producer = KafkaProducer({"bootstrap.servers": options.bootstrap_servers})

    def build() -> StreamProcessor[KafkaPayload]:
        forwarder = ForwarderFactory(handle, options.healthcheck_file_path)
        factory = SynchronizedStrategyFactory(forwarder, commit_log_of(options), limits=LIMITS)
        consumer = factory.consumer(consumer_settings(options))
        dead_letters = DlqPolicy(
            KafkaDlqProducer(producer, Topic(options.dead_letter_topic)), max_buffered_messages_per_partition=BUFFERED
        )
        return StreamProcessor(
            consumer, Topic(options.topic), factory, join_timeout=options.join_timeout, dlq_policy=dead_letters
        )

    try:
        return run_processor(parser.prog, build)
    finally:
        close_producer(producer, "The last dead letters")


if __name__ == "__main__":
    sys.exit(main())
