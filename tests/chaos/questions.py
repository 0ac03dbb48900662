"""What the driver of a run asks the brokers, and the offsets that it sets.

It asks with consumers. An administrator's client of librdkafka 2.16 crashes now and then when a broker goes under such
a request (``rd_kafka_enq_once_del_source_return: refcnt > 0``), and the driver with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from tests.chaos.evidence import LogRecord

ASK_SECONDS = 10.0
REACH_SECONDS = 3.0
"""For a broker that may be away, though the others don't know it yet."""
READ_SECONDS = 60.0


class Questions:
    """All block for as long as the brokers take, for at most `ASK_SECONDS` a question.

    :param topic: the data topic.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic

    def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """Per partition, the offset of the first record and the one after the last."""
        with self._consumer("ends") as consumer:
            partitions = consumer.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions
            return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), ASK_SECONDS) for p in partitions}

    def reachable_ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """The same, without the partitions whose brokers are away."""
        ends: dict[int, tuple[int, int]] = {}
        with self._consumer("ends") as consumer:
            partitions = consumer.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions
            for index in [index for index, each in partitions.items() if each.leader >= 0]:
                with suppress(KafkaException):
                    ends[index] = consumer.get_watermark_offsets(TopicPartition(topic, index), REACH_SECONDS)
        return ends

    def leaders(self, topic: str) -> dict[int, int]:
        """Per partition, the broker that leads it; -1: none."""
        with self._consumer("leaders") as consumer:
            partitions = consumer.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions
            return {index: each.leader for index, each in partitions.items()}

    def committed(self, group: str) -> dict[int, int]:
        """Per partition of the data topic, what a group has committed; partitions without are missing."""
        with self._consumer(group) as consumer:
            partitions = consumer.list_topics(self._topic, timeout=ASK_SECONDS).topics[self._topic].partitions
            answers = consumer.committed([TopicPartition(self._topic, p) for p in partitions], timeout=ASK_SECONDS)
            return {each.partition: each.offset for each in answers if each.offset >= 0}

    def commit(self, group: str, offsets: Mapping[int, int]) -> bool:
        """Whether the group's offsets are set. They can't be while it has members."""
        try:
            with self._consumer(group) as consumer:
                partitions = [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
                answers = consumer.commit(offsets=partitions, asynchronous=False) or []
        except KafkaException:
            return False
        return not any(each.error for each in answers)

    def read_all(self, topic: str) -> list[LogRecord]:
        """Everything that is in a topic."""
        left = {partition for partition, (low, high) in self.ends(topic).items() if low < high}
        records: list[LogRecord] = []
        with self._consumer("checker") as consumer:
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
            deadline = time.monotonic() + READ_SECONDS
            while left and time.monotonic() < deadline:
                for message in consumer.consume(10_000, 0.2):
                    if message.error() is not None:
                        left.discard(message.partition() or 0)
                        continue
                    records.append(LogRecord(message.timestamp()[1] / 1000, message.key(), message.value()))
        return records

    @contextmanager
    def _consumer(self, group: str) -> Iterator[Consumer]:
        """One that is no member of the group."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "log_level": 2,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()
