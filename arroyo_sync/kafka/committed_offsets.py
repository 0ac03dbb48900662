"""What consumer groups have committed on the brokers.

Asked by consumers that name the group and never join it. The administrator's client could ask without a consumer for
each group, but a broker that goes away during such a question aborts the whole process (librdkafka issue 4605).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import make_client, query_settings


class CommittedOffsets:
    """Asks for groups' committed offsets, with a client for each group. For one thread.

    :param configuration: librdkafka settings of the cluster where the groups commit.
    :param on_error: told, out of `ask`, of every error that isn't about one question.
    """

    def __init__(self, configuration: Mapping[str, Any], on_error: Callable[[KafkaError], None]) -> None:
        self._settings = {**query_settings(configuration), "error_cb": on_error}
        self._consumers: dict[str, Consumer] = {}

    def ask(self, group: str, partitions: Collection[PartitionKey], timeout: float) -> dict[PartitionKey, int]:
        """What the group has committed; partitions without a commit are missing. Blocks, at most ``timeout`` seconds.

        :raises KafkaException: the brokers didn't answer, or don't permit it.
        :raises ConfigurationError: librdkafka refuses the settings.
        """
        consumer = self._consumer(group)
        wanted = [TopicPartition(topic, partition) for topic, partition in partitions]
        try:
            answers = consumer.committed(wanted, timeout=timeout)
        finally:
            consumer.poll(0)  # for `on_error`
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {(answer.topic, answer.partition): answer.offset for answer in answers if answer.offset >= 0}

    def reach(self, group: str, timeout: float) -> None:
        """Return if a broker answers at all.

        :raises KafkaException: none did.
        :raises ConfigurationError: librdkafka refuses the settings.
        """
        consumer = self._consumer(group)
        try:
            consumer.list_topics(timeout=timeout)
        finally:
            consumer.poll(timeout / 10)  # for `on_error`, which may have several to hear

    def close(self) -> None:
        """Close the clients."""
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()

    def _consumer(self, group: str) -> Consumer:
        consumer = self._consumers.get(group)
        if consumer is None:
            consumer = self._consumers[group] = make_client(Consumer, {**self._settings, "group.id": group})
        return consumer
