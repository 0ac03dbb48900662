"""What consumer groups have committed on the brokers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from arroyo_sync.state import PartitionKey


class CommittedOffsets:
    """Asks for committed offsets, all groups at once. Not thread-safe.

    :param admin: an administrator's client of the cluster where the groups commit.
    """

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    def ask(
        self, groups: Collection[str], timeout: float, partitions: Collection[PartitionKey] | None = None
    ) -> dict[str, Mapping[PartitionKey, int] | KafkaException]:
        """Per group, what it has committed, or why that can't be known. Blocks for ``timeout`` seconds, a little more.

        :param partitions: only these; by default all that the group ever committed.
        """
        wanted = None if partitions is None else [TopicPartition(topic, partition) for topic, partition in partitions]
        answers: dict[str, Future[Any]] = {}
        for group in groups:
            # The client takes one group in a call, and answers the calls together.
            request = [ConsumerGroupTopicPartitions(group, wanted)]
            answers.update(self._admin.list_consumer_group_offsets(request, request_timeout=timeout))
        return {group: _result(answer, timeout) for group, answer in answers.items()}


def _result(answer: Future[Any], timeout: float) -> Mapping[PartitionKey, int] | KafkaException:
    try:
        committed: ConsumerGroupTopicPartitions = answer.result(timeout + 1.0)
    except KafkaException as error:
        return error
    except FutureTimeoutError:
        return KafkaException(KafkaError(KafkaError._TIMED_OUT))
    offsets: dict[PartitionKey, int] = {}
    for each in committed.topic_partitions or ():
        if each.error is not None:
            return KafkaException(each.error)
        if each.offset >= 0:
            offsets[each.topic, each.partition] = each.offset
    return offsets
