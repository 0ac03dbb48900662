"""Commits what is staged on Arroyo's consumer, and waits for the brokers' answer; and asks what is committed.

What they refuse of a single partition is raised, though the others are committed. Arroyo looks at no partition's
result, and needn't: librdkafka fails the whole commit.

While the group's coordinator is away, librdkafka keeps a commit for ``session.timeout.ms``, 45 s, and Arroyo makes
three of it: `check_coordinator` tells that sooner.

Source: ``rd_kafka_handle_OffsetCommit`` of librdkafka, 2.13 to 2.16 (``tests/integration/test_recreated_topic.py``
holds the installed version against it), ``arroyo/utils/retries.py``.

Threads: the consumer's own, callbacks included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Partition
from arroyo.utils.retries import RetryException
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from arroyo_sync.kafka.arroyo_consumer import (
    client_of,
    client_to_ask,
    staged_offsets,
    unstage_offsets,
    uses_auto_commit,
)
from arroyo_sync.kafka.errors import PARDON_SECONDS, code_of, is_failed_login, kafka_error_of, log_refused_login

NO_MEMBER = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
"""Errors of a commit that say that the group has taken the partitions away: no other try would be answered else."""

_NEXT_TRY_SECONDS = 0.2


def commit_through_refused_logins(
    consumer: Consumer[Any], clock: Callable[[], float]
) -> Mapping[Partition, int] | None:
    """What Arroyo's ``commit_offsets()`` does, and again where it fails since the client's next login is refused.

    Where logins end and begin anew all the time (KIP-368), librdkafka fails the commit that is on its way then, and
    logs in again by itself. A password that is wrong is told before anything can be committed. Arroyo keeps what is
    staged until it is committed, and whoever asked for it goes on, and announces it, only then.

    The last try begins `PARDON_SECONDS` after the first one failed; each blocks as Arroyo's does.

    :param clock: monotonic seconds.
    :raises Exception: whatever else the commit raises, and what it raises at the last try.
    """
    tried_until: float | None = None
    while True:
        try:
            return consumer.commit_offsets()
        except KafkaException as exc:
            error = kafka_error_of(exc)
            if error is None or not is_failed_login(error):
                raise
            now = clock()
            tried_until = tried_until or now + PARDON_SECONDS
            if now >= tried_until:
                raise
            log_refused_login(error)
        time.sleep(_NEXT_TRY_SECONDS)


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
        try:
            consumer.commit_offsets()
        except RetryException as exc:
            raise last_error(exc) from None
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


def drop_staged(consumer: Consumer[Any], partitions: Collection[Partition]) -> None:
    """Let nothing that is staged of these be committed, also under ``arroyo.enable.auto.commit``: there librdkafka
    commits nothing of a partition once no offset is stored (``tests/unit/kafka/test_mock_cluster.py`` holds it to it).

    :raises Exception: it takes none for these, as if they aren't assigned.
    """
    client = client_of(consumer) if uses_auto_commit(consumer) else None
    if client is not None and partitions:
        none = [TopicPartition(each.topic.name, each.index, OFFSET_INVALID) for each in partitions]
        client.store_offsets(offsets=none)
    staged = staged_offsets(consumer) or {}
    unstage_offsets(consumer, {each: staged[each] for each in partitions if each in staged})


def committed_offset(consumer: Consumer[Any], partition: Partition, timeout: float) -> int | None:
    """What the consumer's group has committed of the partition; ``None``: nothing.

    Blocks for at most ``timeout`` seconds. On the consumer's own thread.

    :raises KafkaException: the group's coordinator didn't answer.
    :raises LookupError: this isn't Arroyo's ``KafkaConsumer``.
    """
    return committed_offsets(consumer, [partition], timeout)[partition]


def committed_offsets(
    consumer: Consumer[Any], partitions: Collection[Partition], timeout: float
) -> dict[Partition, int | None]:
    """The same of several, all in one question."""
    asked = {(each.topic.name, each.index): each for each in partitions}
    answers = client_to_ask(consumer).committed([TopicPartition(*key) for key in asked], timeout=timeout)
    _raise_errors(answers)
    return {asked[each.topic, each.partition]: each.offset if each.offset >= 0 else None for each in answers}


def check_coordinator(consumer: Consumer[Any], partition: Partition, timeout: float) -> None:
    """Return if a commit would be answered; see `committed_so_far`."""
    committed_so_far(consumer, [partition], timeout)


def committed_so_far(
    consumer: Consumer[Any], partitions: Collection[Partition], timeout: float
) -> Mapping[Partition, int | None]:
    """What is committed, as the group's coordinator says, so that a commit would be answered, too. Empty if this isn't
    Arroyo's ``KafkaConsumer``, which can't be asked.

    Blocks for at most ``timeout`` seconds.

    :raises KafkaException: it doesn't.
    """
    with suppress(LookupError):
        return committed_offsets(consumer, partitions, timeout)
    return {}


def last_error(error: Exception) -> Exception:
    """What the last of Arroyo's tries raised, if they have failed: their own ``RetryException`` has no text. Else the
    error itself."""
    cause = error.__cause__
    return cause if isinstance(error, RetryException) and isinstance(cause, Exception) else error


def _raise_errors(results: list[TopicPartition] | None) -> None:
    for result in results or ():
        if result.error is not None:
            raise KafkaException(result.error)
