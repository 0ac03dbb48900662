"""Rebalances on the real broker while messages are held: nothing lost, nothing early, in order."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from arroyo.backends.abstract import ProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.dlq import DlqPolicy, InvalidMessage, NoopDlqProducer
from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.types import BrokerValue, Commit, Message, Partition
from confluent_kafka import KafkaException

from arroyo_sync.core.errors import ConfigurationError
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import Follower, patient_settings, produce_numbered
from tests.integration.cluster.waiting import wait_until

PARTITIONS = 4
PER_PARTITION = 500
RELEASED = 100
INVALID = 3
"""The offset, in each partition, of the message that becomes a dead letter."""
HELD = PER_PARTITION - INVALID - 1


def is_in_order(follower: Follower) -> bool:
    """Promise 2: within every assignment each partition's offsets rise by one, each once."""
    for delivered in follower.deliveries:
        for partition in range(PARTITIONS):
            offsets = [offset for index, offset in delivered if index == partition]
            if offsets and offsets != list(range(offsets[0], offsets[0] + len(offsets))):
                return False
    return True


@pytest.mark.parametrize(("protocol", "wrapped"), [("eager", True), ("kip848", True), ("eager", False)])
def test_no_loss_when_a_member_joins_and_leaves_while_messages_are_held(
    kafka: Kafka, topic_name: Callable[..., str], protocol: str, wrapped: bool
) -> None:
    """Promises 1 to 3: what the old gates held, and what the processors carried, is read again by whoever owns it then.

    Under eager assignment without the consumer wrapper too.
    """
    topic, group = topic_name("events"), topic_name("follower")
    kafka.create_topic(topic, PARTITIONS)
    produce_numbered(kafka.bootstrap_servers, topic, range(PARTITIONS), PER_PARTITION)
    settings = patient_settings(kafka.bootstrap_servers, group, protocol)

    first = Follower(settings, topic, wrapped=wrapped)
    first.start()
    try:
        first.release(range(PARTITIONS), RELEASED)
        first.wait_until_received(PARTITIONS * RELEASED)
        wait_until(lambda: first.held == PARTITIONS * (PER_PARTITION - RELEASED), 60, "the rest is held")

        second = Follower(settings, topic, wrapped=wrapped)
        second.release(range(PARTITIONS), RELEASED)
        second.start()
        try:
            wait_until(lambda: len(second.assigned) == 2 and len(first.assigned) == 2, 60, "each has two partitions")
            wait_until(
                lambda: first.held == second.held == 2 * (PER_PARTITION - RELEASED),
                60,
                "each holds its partitions' rest",
            )
            for follower in (first, second):
                follower.release(range(PARTITIONS), 2 * RELEASED)
            second.wait_until_received(2 * RELEASED)
        finally:
            second.stop()
        wait_until(lambda: len(first.assigned) == PARTITIONS, 60, "the first has all partitions again")
        first.release(range(PARTITIONS), PER_PARTITION)
        wait_until(
            lambda: {(p, PER_PARTITION - 1) for p in range(PARTITIONS)} <= set(first.received), 60, "the last of each"
        )
    finally:
        first.stop()

    seen = Counter(first.received) + Counter(second.received)
    assert is_in_order(first)
    assert is_in_order(second)
    missing = [(p, o) for p in range(PARTITIONS) for o in range(PER_PARTITION) if not seen[p, o]]
    assert missing == []
    assert kafka.committed_offsets(group, topic) == dict.fromkeys(range(PARTITIONS), PER_PARTITION)


@pytest.mark.kip848
def test_a_partition_that_is_added_doesn_t_end_a_follower_of_the_new_protocol(
    kafka: Kafka, topic_name: Callable[..., str]
) -> None:
    """The brokers assign it at once, and the client learns of it later.

    It gives statistics after the assignment, in the same poll: a callback that aborts the process (and the test's)
    where the one before has called what it must not.
    """
    topic = topic_name("events")
    kafka.create_topic(topic, 1)
    settings = patient_settings(kafka.bootstrap_servers, topic_name("follower"), "kip848")
    del settings["topic.metadata.refresh.interval.ms"]
    statistics: list[str] = []
    settings |= {"statistics.interval.ms": 5, "stats_cb": statistics.append}
    follower = Follower(settings, topic)
    follower.release((0, 1), 1)
    follower.start()
    try:
        wait_until(lambda: follower.assigned == {0}, 60, "the assignment")
        kafka.add_partitions(topic, 2)
        wait_until(lambda: follower.assigned == {0, 1} or follower.error is not None, 60, "the added partition")
        produce_numbered(kafka.bootstrap_servers, topic, (0, 1), 1)
        follower.wait_until_received(2)
    finally:
        follower.stop()
    assert statistics


@pytest.mark.parametrize("protocol", ["eager", "kip848"])
def test_a_follower_ends_though_an_assignment_lies_in_its_clients_queue(
    kafka: Kafka, topic_name: Callable[..., str], protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is handed out before the closing, in which Arroyo would ask for the group's commits, for ever, and in which
    librdkafka itself may hang, once in a few hundred times under KIP-848, with the interpreter's lock held.
    """
    topic, group = topic_name("events"), topic_name("follower")
    kafka.create_topic(topic, PARTITIONS)
    logger = logging.getLogger(topic)
    settings = patient_settings(kafka.bootstrap_servers, group, protocol)
    follower = Follower({**settings, "debug": "cgrp", "logger": logger}, topic)
    caplog.set_level(logging.DEBUG, topic)

    def is_assigned() -> bool:
        try:
            described = kafka.admin.describe_consumer_groups([group], request_timeout=10)[group].result(60)
        except KafkaException:  # the group, or its coordinator, isn't there yet
            return False
        return [len(member.assignment.topic_partitions) for member in described.members] == [PARTITIONS]

    wait_until(is_assigned, 60, "the brokers have assigned what nobody has polled for")
    follower.processor.signal_shutdown()
    follower.start()  # its first step is to close all
    follower.stop()
    assert follower.assignments == []
    closings = [each for each in caplog.messages if "received op TERMINATE" in each]
    assert len(closings) == 1
    assert "wait-assign-call" not in closings[0]
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_cooperative_sticky_is_refused_with_one_clear_line(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """Arroyo itself can't work with it: the processor ends with the reason instead of librdkafka's."""
    topic = topic_name("events")
    kafka.create_topic(topic, PARTITIONS)
    settings = patient_settings(kafka.bootstrap_servers, topic_name("follower"), "eager")
    follower = Follower({**settings, "partition.assignment.strategy": "cooperative-sticky"}, topic)
    follower.start()
    wait_until(lambda: follower.error is not None, 60, "the processor has ended")
    with pytest.raises(ConfigurationError, match=r"cooperative-sticky, nor .*: use range or roundrobin, or group\."):
        follower.stop()


class _Check(ProcessingStrategy[KafkaPayload]):
    """Finds one message of each partition invalid, and passes no other on, so that nothing is ever committed."""

    def submit(self, message: Message[KafkaPayload]) -> None:
        assert isinstance(message.value, BrokerValue)
        if message.value.offset == INVALID:
            raise InvalidMessage(message.value.partition, message.value.offset, log_exception=False)

    def poll(self) -> None:
        pass

    def close(self) -> None:
        pass

    def terminate(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        pass


class _Checking(Follower):
    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        super().create_with_partitions(commit, partitions)
        return _Check()


class _DeadLetters(NoopDlqProducer):
    """Notes which messages became dead letters."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, int]] = []

    def produce(
        self, value: BrokerValue[KafkaPayload], reason: str | None = None
    ) -> ProducerFuture[BrokerValue[KafkaPayload]]:
        self.messages.append((value.partition.index, value.offset))
        return super().produce(value, reason)


def _let_another_member_come_and_go(first: Follower, settings: Mapping[str, Any], topic: str) -> None:
    """Each has a partition for a while; afterwards the first holds everything again."""
    second = Follower(settings, topic)
    second.start()
    try:
        wait_until(lambda: len(first.assigned) == len(second.assigned) == 1, 60, "each has a partition")
        wait_until(lambda: first.held == HELD, 60, "the first has read its own again")
    finally:
        second.stop()
    wait_until(lambda: len(first.assigned) == 2, 60, "the first has both again")
    wait_until(lambda: first.held == 2 * HELD, 60, "and has read both")


@pytest.mark.parametrize("protocol", ["eager", "kip848"])
def test_no_dead_letter_is_lost_however_many_rebalances_there_are(
    kafka: Kafka, topic_name: Callable[..., str], protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Arroyo's buffer for them holds just what the gate holds; each rebuild reads the retained partition again.

    The dead letter as well, which Arroyo wouldn't find in a buffer that still holds what came after it.
    """
    topic, group = topic_name("events"), topic_name("follower")
    kafka.create_topic(topic, 2)
    produce_numbered(kafka.bootstrap_servers, topic, range(2), PER_PARTITION)
    settings = patient_settings(kafka.bootstrap_servers, group, protocol)
    letters = _DeadLetters()
    policy = DlqPolicy(letters, max_buffered_messages_per_partition=PER_PARTITION)
    first = _Checking(settings, topic, dlq_policy=policy)
    first.start()
    try:
        wait_until(lambda: first.held == 2 * PER_PARTITION, 60, "everything is held")
        first.release(range(2), INVALID + 1)
        wait_until(lambda: first.held == 2 * HELD, 60, "the dead letters have gone through")
        for _ in range(2):
            _let_another_member_come_and_go(first, settings, topic)
        first.release(range(2), PER_PARTITION)
        wait_until(lambda: first.held == 0, 60, "all has gone through")
    finally:
        first.stop()
    assert set(letters.messages) == {(0, INVALID), (1, INVALID)}
    # Nothing is ever committed, so it comes again: of one partition at least in each of the four rebalances.
    assert len(letters.messages) >= 2 + 4
    assert [each for each in caplog.messages if "not found in buffer" in each] == []
