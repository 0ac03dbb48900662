r"""Several topics in one process: a source, a factory, a consumer and a processor for each, and a thread.

    python examples/several_topics.py --bootstrap-servers $KAFKA \
        --follow events=snuba-consumers --follow transactions=transactions-group \
        --consumer-group post-process-forwarder --synchronize-commit-log-topic snuba-commit-log

KAFKA is a broker's address, such as that of ``examples/broker.py --topic events --topic transactions``. The leader of
events can be `examples/first_leader.py`, that of transactions `examples/leader.py`.

The gate compares offsets, so each topic has one of its own; the commit log may be the same. If one processor fails, the
others are shut down, and the error ends the program. SIGTERM and Ctrl-C end them all cleanly.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.types import Topic
from post_process_forwarder import ForwarderFactory
from runner import print_event, run_and_report

from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory


def make_processor(topic: str, leader_group: str, options: argparse.Namespace) -> StreamProcessor[KafkaPayload]:
    """The follower of one topic, which shares nothing with the others."""
    kafka = {"bootstrap.servers": options.bootstrap_servers}
    commit_log = CommitLogConsumer(kafka, topic=Topic(options.synchronize_commit_log_topic), groups={leader_group})
    factory = SynchronizedStrategyFactory(ForwarderFactory(print_event, None), commit_log)
    # A group for each topic: in one group, what happens to one topic's members would rebalance the other's, too.
    group = f"{options.consumer_group}-{topic}"
    consumer = factory.consumer({**kafka, "group.id": group, "auto.offset.reset": "earliest"})
    return StreamProcessor(consumer, Topic(topic), factory, join_timeout=10)


def run_all(processors: Sequence[StreamProcessor[Any]]) -> None:
    """Each on a thread, until one of them ends; then the others are shut down. Raises what one of them failed with."""
    with ThreadPoolExecutor(len(processors)) as threads:
        running = [threads.submit(processor.run) for processor in processors]
        wait(running, return_when=FIRST_COMPLETED)
        for processor in processors:
            processor.signal_shutdown()
    for each in running:
        each.result()


def topic_and_group(text: str) -> tuple[str, str]:
    topic, equals, group = text.partition("=")
    if not (topic and equals and group):
        raise argparse.ArgumentTypeError(f"give it as TOPIC=LEADER-GROUP, not {text}")
    return topic, group


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the events of several topics once they are committed.")
    parser.add_argument("--bootstrap-servers", required=True, metavar="HOST:PORT,...")
    parser.add_argument("--follow", required=True, action="append", metavar="TOPIC=LEADER-GROUP", type=topic_and_group)
    parser.add_argument("--consumer-group", required=True, help="the topic's name is added to it")
    parser.add_argument("--synchronize-commit-log-topic", required=True, metavar="TOPIC")
    options = parser.parse_args(arguments)
    processors = [make_processor(topic, group, options) for topic, group in options.follow]

    def shut_down(signum: int, frame: object) -> None:
        for processor in processors:
            processor.signal_shutdown()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, shut_down)
    return run_and_report(parser.prog, lambda: run_all(processors))


if __name__ == "__main__":
    sys.exit(main())
