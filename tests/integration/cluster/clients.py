"""The plainest producer and consumers, for tests that are about something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from tests.integration.cluster.waiting import wait_until

WAIT_SECONDS = 30.0


def produce(bootstrap_servers: str, topic: str, values: Sequence[str], **config: str) -> None:
    """Write values to partition 0 and wait until all replicas in sync have them."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 0, "log_level": 0, **config})
    failures: list[object] = []
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(WAIT_SECONDS) == 0
    assert set(failures) == {None}


def read(bootstrap_servers: str, topic: str, count: int) -> list[str]:
    """The first values of partition 0."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "unused", "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values: list[str] = []

    def is_complete() -> bool:
        for message in consumer.consume(count - len(values), timeout=0.1):
            value = message.value()
            if message.error() is None and value is not None:
                values.append(value.decode())
        return len(values) == count

    try:
        wait_until(is_complete, WAIT_SECONDS, f"{count} messages of {topic}")
    finally:
        consumer.close()
    return values


class GroupMember:
    """A consumer that is a member of a group, driven by hand."""

    def __init__(self, bootstrap_servers: str, topic: str, **config: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, "log_level": 0, **config})
        self._consumer.subscribe([topic])

    def __enter__(self) -> GroupMember:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def poll(self) -> None:
        message = self._consumer.poll(0.05)
        assert message is None or message.error() is None

    def poll_until(self, is_so: Callable[[], bool], what: str) -> None:
        def poll_and_ask() -> bool:
            self.poll()
            return is_so()

        wait_until(poll_and_ask, WAIT_SECONDS, what)

    def partitions(self) -> set[int]:
        return {each.partition for each in self._consumer.assignment()}
