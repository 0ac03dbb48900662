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

SECONDS = 180.0
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

    def produce(self, *values: str, topic: str | None = None) -> None:
        for value in values:
            self._producer.produce(topic or self.events, value)
        assert self._producer.flush(SECONDS) == 0

    def publish(self, offset: int, topic: str | None = None) -> None:
        """As Snuba's Rust consumer writes it: compact JSON with ``received_p99``."""
        value = json.dumps({"offset": offset, "orig_message_ts": 1.7e9, "received_p99": 1.7e9}, separators=(",", ":"))
        self._producer.produce(self.commit_log, value, f"{topic or self.events}:0:{self.leader}")
        assert self._producer.flush(SECONDS) == 0

    def run(self, name: str, *flags: str, own_group: bool = False) -> Program:
        arguments = ["--bootstrap-servers", self.kafka.bootstrap_servers, "--topic", self.events]
        arguments += ["--consumer-group", self.group, "--synchronize-commit-log-topic", self.commit_log]
        arguments += ["--synchronize-commit-group", self.leader, *flags]
        return Program(self._folder / name, str(EXAMPLES / "sentry_runner.py"), *arguments, own_group=own_group)

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


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_the_whole_process_group_ends_it_cleanly(field: Field, signum: signal.Signals) -> None:
    """The processes of the pool and of the shared memory get it too, as from a supervisor or by Ctrl-C."""
    field.produce(*numbered(range(RELEASED)))
    field.publish(RELEASED)
    with field.run("runner", "--mode", "multiprocess", own_group=True) as program:
        field.wait_for(RELEASED, program)
        program.signal_group(signum)
        assert program.exit_status() == 0, program.text
    assert "Traceback" not in program.text
    assert field.kafka.committed_offsets(field.group, field.events) == {0: RELEASED}


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


SELF_HOSTED = ("--auto-offset-reset", "latest", "--no-strict-offset-reset", "--enable-auto-commit")


def numbered(offsets: range) -> list[str]:
    return [json.dumps({"id": offset}) for offset in offsets]


def test_with_self_hosteds_settings_nothing_is_skipped_but_what_has_expired(field: Field) -> None:
    """``latest``: it begins at the end, and there again after a restart before anything was released.

    What was committed expires while it is down (short retention): it goes on at the end, as far as the leader says.
    """
    field.produce(*numbered(range(20)))
    with field.run("first", *SELF_HOSTED) as first:
        wait_until(lambda: field.kafka.committed_offsets(field.group, field.events) == {0: 20}, SECONDS, "its start")
        end(first)
    field.produce(*numbered(range(20, 60)))
    with field.run("second", *SELF_HOSTED) as second:
        field.publish(60)
        field.wait_for(40, second)
        end(second)
    assert field.lines(first, second) == field.expected(range(20, 60))

    field.produce(*numbered(range(60, 80)))
    field.kafka.delete_records(field.events, {0: 70})
    field.publish(80)
    produced = 80
    with field.run("third", *SELF_HOSTED) as third:

        def does_process() -> bool:
            nonlocal produced
            field.produce(*numbered(range(produced, produced + 1)))
            produced += 1
            field.publish(produced)
            return bool(field.lines(third))

        wait_until(does_process, SECONDS, "the first event after the gap")
        field.produce(*numbered(range(produced, produced + 20)))
        field.publish(produced + 10)
        third.wait_for(f"{field.events}:0:{produced + 9} ")
        end(third)
    # Two threads write, so only now it is known which was the first.
    begin = int(field.lines(third)[0].split(" ")[0].rsplit(":", 1)[1])
    assert begin >= 80
    assert field.lines(third) == field.expected(range(begin, produced + 10))


def test_two_topics_under_one_group_go_on_each_by_its_own_leader(field: Field, topic_name: Callable[..., str]) -> None:
    """As Sentry's forwarders of errors and of transactions are run: two processes, one group, one commit log."""
    others = topic_name("transactions")
    field.kafka.create_topic(others)
    for topic in (field.events, others):
        field.produce(*numbered(range(EVENTS)), topic=topic)
    field.publish(RELEASED)
    with field.run("errors") as errors, field.run("transactions", "--topic", others) as transactions:
        field.wait_for(RELEASED, errors)
        assert [line for line in transactions.text.splitlines() if line.startswith(f"{others}:0:")] == []
        field.publish(EVENTS, topic=others)
        transactions.wait_for(f"{others}:0:{EVENTS - 1} ")
        end(transactions)
        field.publish(EVENTS)
        field.wait_for(EVENTS, errors)
        end(errors)
    assert set(field.lines(errors)) == set(field.expected(range(EVENTS)))
    assert {line.split(" ")[0] for line in transactions.text.splitlines() if line.startswith(others)} == {
        f"{others}:0:{offset}" for offset in range(EVENTS)
    }
