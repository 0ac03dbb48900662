"""A pipeline of Sentry's streaming platform behind the gate: its sink gets what the leaders have committed."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from tests.integration.cluster.admin import Kafka
from tests.support.programs import EXAMPLES, Program

SECONDS = 60.0

needs_streams = pytest.mark.skipif(sys.version_info < (3, 11), reason="sentry-streams needs Python 3.11")


@needs_streams
def test_the_sink_gets_what_is_released_and_nothing_else(
    kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path
) -> None:
    """Three events, two of them committed by the leader; then the third."""
    events, sink, commit_log = (topic_name(name) for name in ("events", "sink", "commit-log"))
    for topic in (events, sink, commit_log):
        kafka.create_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})

    def publish(offset: int) -> None:
        value = json.dumps({"offset": offset, "orig_message_ts": 0.0, "received_p99": None})
        producer.produce(commit_log, value, f"{events}:0:writers")
        assert producer.flush(SECONDS) == 0

    for value in ("one", "two", "three"):
        producer.produce(events, value)
    publish(2)
    reader = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": topic_name("reader"),
            "auto.offset.reset": "earliest",
        }
    )
    reader.subscribe([sink])
    flags = ["--bootstrap-servers", kafka.bootstrap_servers, "--topic", events, "--sink-topic", sink]
    flags += ["--consumer-group", topic_name("follower"), "--synchronize-commit-log-topic", commit_log]
    try:
        with Program(
            tmp_path / "program",
            str(EXAMPLES / "sentry_streams_follower.py"),
            *(*flags, "--synchronize-commit-group", "writers"),
        ) as program:
            assert [message.value() for message in reader.consume(2, SECONDS)] == [b"ONE", b"TWO"], program.text
            publish(3)
            assert [message.value() for message in reader.consume(1, SECONDS)] == [b"THREE"], program.text
            program.signal(signal.SIGTERM)
            assert program.exit_status() == 0, program.text
            assert "Traceback" not in program.text
    finally:
        reader.close()
