"""Commits what is staged on Arroyo's consumer, and waits for the brokers' answer.

What they refuse of a single partition is raised, though the others are committed. Arroyo looks at no partition's
result, and needn't: librdkafka fails the whole commit.

Source: ``rd_kafka_handle_OffsetCommit`` of librdkafka, 2.13 to 2.16 (``tests/integration/test_recreated_topic.py``
holds the installed version against it).

Threads: the consumer's own, callbacks included.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from arroyo_sync.kafka.arroyo_consumer import client_of, uses_auto_commit
from arroyo_sync.kafka.errors import code_of


def commit_staged(consumer: Consumer[Any], by_name: Mapping[Partition, int] = MappingProxyType({})) -> None:
    """Commit what is staged now, also under ``arroyo.enable.auto.commit``, where ``commit_offsets()`` does nothing.

    There librdkafka, asked to commit what is staged, leaves out what lies before its last commit. Blocks until the
    broker has answered.

    Source: ``rd_kafka_topic_partition_list_set_offsets`` of librdkafka 2.16, which compares with what was committed.

    :param by_name: staged offsets that are committed though more has been.
    :raises Exception: whatever the commit raises; what is staged stays so.
    """
    client = client_of(consumer) if uses_auto_commit(consumer) else None
    if client is None:
        consumer.commit_offsets()
        return
    if by_name:
        offsets = [TopicPartition(each.topic.name, each.index, offset) for each, offset in by_name.items()]
        _raise_errors(client.commit(offsets=offsets, asynchronous=False))
    try:
        results = client.commit(asynchronous=False)
    except KafkaException as exc:
        if code_of(exc) == KafkaError._NO_OFFSET:
            return  # all of it has been committed
        raise
    _raise_errors(results)


def _raise_errors(results: list[TopicPartition] | None) -> None:
    for result in results or ():
        if result.error is not None:
            raise KafkaException(result.error)
