r"""A pipeline of Sentry's streaming platform (``sentry-streams``) behind the gate.

    pip install '.[streams]'
    python examples/sentry_streams_follower.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group forwarder --sink-topic forwarded \
        --synchronize-commit-log-topic snuba-commit-log --synchronize-commit-group snuba-consumers

KAFKA is a broker's address, such as `examples/broker.py` prints; `examples/first_leader.py` can be the leader.

The platform's Python runtime for Arroyo makes a StreamProcessor of a consumer, a topic and a factory. `GatedAdapter`
replaces three things of it: the consumer (its own settings, and the flow control around it), the factory (the gate
around the platform's), and ``join_timeout``, which the platform sets to 0, so that work in flight in a rebalance is
done again. The pipeline itself stays as it is written for the platform. SIGTERM and Ctrl-C end it cleanly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from arroyo.backends.kafka import KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.types import Topic
from runner import (
    add_commit_log_flag,
    add_consumer_flags,
    add_leader_groups_flag,
    close_producer,
    commit_log_of,
    consumer_settings,
    run_processor,
)
from sentry_streams.adapters.arroyo.adapter import ArroyoAdapter
from sentry_streams.adapters.arroyo.consumer import ArroyoStreamingFactory
from sentry_streams.adapters.stream_adapter import RuntimeTranslator
from sentry_streams.pipeline.message import Message
from sentry_streams.pipeline.pipeline import Map, Pipeline, StreamSink, streaming_source
from sentry_streams.runner import iterate_edges

from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory

SOURCE = "events"


def in_capitals(message: Message[bytes]) -> bytes:
    """What this pipeline does with an event."""
    return message.payload.upper()


def pipeline(topic: str, sink_topic: str) -> Pipeline[bytes]:
    """A pipeline as the platform's users write one."""
    source = streaming_source(name=SOURCE, stream_name=topic)
    source.apply(Map("in_capitals", function=in_capitals)).sink(StreamSink("sink", stream_name=sink_topic))
    return source


class GatedAdapter(ArroyoAdapter):
    """The platform's runtime for Arroyo, with the gate put in."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        producer: KafkaProducer,
        commit_log: CommitLogConsumer,
        topic: str,
        join_timeout: float | None,
    ) -> None:
        # With this the platform makes no consumer: the gate makes it.
        made_by_the_gate: Any = {SOURCE: None}
        super().__init__({}, sources_override=made_by_the_gate, sinks_override={"sink": producer})
        self._settings = settings
        self._commit_log = commit_log
        self._topic = topic
        self._join_timeout = join_timeout

    def processor(self) -> StreamProcessor[KafkaPayload]:
        """In place of the platform's ``create_processors``, which leaves no room for the gate."""
        # The platform's own description of the pipeline, which it gives no public name.
        consumers: Mapping[str, Any] = self._ArroyoAdapter__consumers  # type: ignore[attr-defined]
        factory = SynchronizedStrategyFactory(ArroyoStreamingFactory(consumers[SOURCE]), self._commit_log)
        consumer = factory.consumer(self._settings)
        return StreamProcessor(consumer, Topic(self._topic), factory, join_timeout=self._join_timeout)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a pipeline of sentry-streams behind the gate.")
    add_consumer_flags(parser)
    add_commit_log_flag(parser)
    add_leader_groups_flag(parser)
    parser.add_argument("--sink-topic", required=True, metavar="TOPIC", help="where the pipeline writes to")
    options = parser.parse_args(arguments)
    producer = KafkaProducer({"bootstrap.servers": options.bootstrap_servers})

    def build() -> StreamProcessor[KafkaPayload]:
        settings = consumer_settings(options)
        adapter = GatedAdapter(settings, producer, commit_log_of(options), options.topic, options.join_timeout)
        iterate_edges(pipeline(options.topic, options.sink_topic), RuntimeTranslator(adapter))
        return adapter.processor()

    try:
        return run_processor(parser.prog, build)
    finally:
        close_producer(producer, "The last results")


if __name__ == "__main__":
    sys.exit(main())
