"""The runner shaped as Sentry's, on a real broker with records as Snuba writes them, in both of its modes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.waiting import wait_until
from tests.support.programs import EXAMPLES, Program

SECONDS = 60.0
EVENTS, RELEASED = 60, 40


class Field:
    """A data topic of one partition, a commit log, a dead-letter queue, and the runner on them."""

    def __init__(self, kafka: Kafka, topic_name: Callable[..., str], folder: Path) -> None:
        self.kafka = kafka
        self.events, self.commit_log, self.dlq = (topic_name(name) for name in ("events", "commit-log", "dlq"))
        self.group, self.leader = topic_name("forwarder"), topic_name("snuba-consumers")
        self._folder = folder
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        for topic in (self.events, self.commit_log, self.dlq):
            kafka.create_topic(topic)

    def produce(self, *values: str) -> None:
        for value in values:
            self._producer.produce(self.events, value)
        assert self._producer.flush(SECONDS) == 0

    def publish(self, offset: int) -> None:
        """As Snuba's Rust consumer writes it: compact JSON with ``received_p99``."""
        value = json.dumps({"offset": offset, "orig_message_ts": 1.7e9, "received_p99": 1.7e9}, separators=(",", ":"))
        self._producer.produce(self.commit_log, value, f"{self.events}:0:{self.leader}")
        assert self._producer.flush(SECONDS) == 0

    def run(self, name: str, *flags: str) -> Program:
        arguments = ["--bootstrap-servers", self.kafka.bootstrap_servers, "--topic", self.events]
        arguments += ["--consumer-group", self.group, "--synchronize-commit-log-topic", self.commit_log]
        arguments += ["--synchronize-commit-group", self.leader, *flags]
        return Program(self._folder / name, str(EXAMPLES / "sentry_runner.py"), *arguments)

    def lines(self, *programs: Program) -> list[str]:
        """What was processed, in all of them, by offset: threads and processes end in any order."""
        written = "".join(program.text for program in programs).splitlines()
        own = [line for line in written if line.startswith(f"{self.events}:0:")]
        return sorted(own, key=lambda line: int(line.split(" ")[0].rsplit(":", 1)[1]))

    def wait_for(self, count: int, *programs: Program) -> None:
        wait_until(
            lambda: len(set(self.lines(*programs))) >= count,
            SECONDS,
            lambda: f"{count} processed, not {[program.text for program in programs]}",
        )

    def expected(self, offsets: range) -> list[str]:
        return [f'{self.events}:0:{offset} {{"id": {offset}}}' for offset in offsets]

    def dead_letters(self, count: int) -> list[bytes | None]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": f"{self.group}-dlq",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe([self.dlq])
        try:
            messages = consumer.consume(count, SECONDS)
        finally:
            consumer.close()
        return [message.value() for message in messages]


@pytest.fixture
def field(kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path) -> Field:
    return Field(kafka, topic_name, tmp_path)


def end(program: Program) -> None:
    program.signal(signal.SIGTERM)
    assert program.exit_status() == 0, program.text
    assert "Traceback" not in program.text


@pytest.mark.parametrize("flags", [(), ("--enable-auto-commit",)], ids=["commits", "auto-commit"])
@pytest.mark.parametrize("mode", ["threads", "multiprocess"])
def test_events_are_processed_as_far_as_snuba_has_committed(field: Field, mode: str, flags: tuple[str, ...]) -> None:
    """Not one more; and a second process goes on where the first one ended."""
    flags = ("--mode", mode, "--no-strict-offset-reset", *flags)
    field.produce(*(json.dumps({"id": number}) for number in range(EVENTS)))
    field.publish(RELEASED)
    with field.run("first", *flags) as first:
        field.wait_for(RELEASED, first)
        end(first)
    assert field.lines(first) == field.expected(range(RELEASED))
    field.publish(EVENTS)
    with field.run("second", *flags) as second:
        field.wait_for(EVENTS, first, second)
        end(second)
    assert field.lines(second) == field.expected(range(RELEASED, EVENTS))


def test_invalid_messages_become_dead_letters_once_they_are_released(field: Field) -> None:
    """Behind the gate the wrappers work as they do without it."""
    field.produce('{"id": 0}', "not JSON", '{"id": 2}', "[]", '{"id": 4}')
    with field.run("runner", "--enforce-schema", "--dlq-topic", field.dlq) as program:
        field.publish(3)
        field.wait_for(2, program)
        assert field.dead_letters(1) == [b"not JSON"]
        field.publish(5)
        field.wait_for(3, program)
        end(program)
    assert field.lines(program) == [
        *field.expected(range(1)),
        *field.expected(range(2, 3)),
        *field.expected(range(4, 5)),
    ]


def test_stale_messages_become_dead_letters(field: Field) -> None:
    """A threshold of nothing makes every message stale, and all of them are committed."""
    field.produce('{"id": 0}', '{"id": 1}')
    field.publish(2)
    with field.run("runner", "--stale-threshold-sec", "0", "--dlq-topic", field.dlq) as program:
        assert field.dead_letters(2) == [b'{"id": 0}', b'{"id": 1}']
        end(program)
    assert field.lines(program) == []


def test_a_static_member_that_is_restarted_goes_on(field: Field) -> None:
    """With a group.instance.id the second process takes the first one's place without a rebalance."""
    field.produce(*(json.dumps({"id": number}) for number in range(EVENTS)))
    field.publish(RELEASED)
    with field.run("first", "--group-instance-id", "pod-0") as first:
        field.wait_for(RELEASED, first)
        end(first)
    with field.run("second", "--group-instance-id", "pod-0") as second:
        field.publish(EVENTS)
        field.wait_for(EVENTS, first, second)
        end(second)
    assert sorted(field.lines(first, second)) == sorted(field.expected(range(EVENTS)))
