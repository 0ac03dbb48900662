"""Transactions of the data topic's producers and of the leader, which are open or hang, on the real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from arroyo.types import Topic
from confluent_kafka import Consumer, Producer, TopicPartition

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.leaders.commit_log import log_topic
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.log_topic import UNFETCHED_CHECKS, FetchCheck
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.leaders.offset_source import OffsetSource
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.reading import QUICK, TIMEOUT_SECONDS, CommitLog, reading, running

Names = Callable[..., str]


@contextmanager
def transaction(kafka: Kafka, transactional_id: str) -> Iterator[Producer]:
    """Whatever the producer does stays in a transaction that doesn't end."""
    settings: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": transactional_id}
    producer = Producer({**settings, "transaction.timeout.ms": 600_000})  # longer than any test takes
    producer.init_transactions(TIMEOUT_SECONDS)
    producer.begin_transaction()
    try:
        yield producer
    finally:
        producer.abort_transaction(TIMEOUT_SECONDS)


@contextmanager
def hanging_commit(
    kafka: Kafka, group: str, offsets: Mapping[PartitionKey, int], transactional_id: str
) -> Iterator[None]:
    """A group's offsets in a transaction that doesn't end."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    try:
        with transaction(kafka, transactional_id) as producer:
            producer.send_offsets_to_transaction(
                [TopicPartition(*key, offset) for key, offset in offsets.items()],
                consumer.consumer_group_metadata(),
                TIMEOUT_SECONDS,
            )
            yield
    finally:
        consumer.close()


def test_a_leader_that_reads_uncommitted_messages_opens_the_gate_past_the_last_stable_offset(
    kafka: Kafka, topic_name: Names
) -> None:
    """At once, while the transaction is open. An offset past the partition's end stays impossible."""
    data, log = topic_name("events"), topic_name("commit-log")
    kafka.create_topic(data)
    kafka.create_topic(log)
    commit_log = CommitLog(kafka, log)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for _ in range(10):
        producer.produce(data, b"x")
    assert producer.flush(TIMEOUT_SECONDS) == 0
    with transaction(kafka, topic_name("transaction")) as open_producer:
        for _ in range(6):
            open_producer.produce(data, b"x")
        assert open_producer.flush(TIMEOUT_SECONDS) == 0
        with reading(kafka, log) as (source, remote):
            source.assign({(data, 0): 10}, None)
            commit_log.publish(16, topic=data)
            remote.wait_for(16, topic=data)
            assert source.statistics().impossible == 0
            commit_log.publish(17, topic=data)
            remote.wait_until(lambda: source.statistics().impossible == 1, "what can't be to be rejected")


def test_a_transaction_on_the_commit_log_is_no_client_that_fetches_no_more(
    kafka: Kafka, topic_name: Names, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is open, and once it was aborted, the log reaches further than any record that may be read."""
    monkeypatch.setattr(log_topic, "FETCH_CHECK_SECONDS", 0.3)
    checks: list[Mapping[int, int]] = []
    ask = FetchCheck._ask

    def noted(check: FetchCheck, positions: Mapping[int, int]) -> None:
        checks.append(check._ends)
        ask(check, positions)

    monkeypatch.setattr(FetchCheck, "_ask", noted)
    log = topic_name("commit-log")
    kafka.create_topic(log)
    commit_log = CommitLog(kafka, log)
    commit_log.publish(5)
    with reading(kafka, log) as (source, remote):
        remote.wait_for(5)
        with transaction(kafka, topic_name("transaction")) as producer:
            producer.produce(log, key=b"rubbish", value=b"x")
            assert producer.flush(TIMEOUT_SECONDS) == 0
            remote.wait_until(lambda: checks.count({0: 2}) > 2 * UNFETCHED_CHECKS, "checks of an open transaction")
        remote.wait_until(lambda: checks.count({0: 3}) > 2 * UNFETCHED_CHECKS, "checks of an aborted one")
        assert source.ready
    assert "fetches no more" not in caplog.text


@pytest.mark.parametrize("kind", ["group offsets", "recent"])
def test_a_commit_that_hangs_in_a_transaction_hides_nothing(kafka: Kafka, topic_name: Names, kind: str) -> None:
    """Of its own partition, what the group committed before counts; other partitions are as ever."""
    data, log, group = topic_name("events"), topic_name("commit-log"), topic_name("group")
    kafka.create_topic(data, 2)
    kafka.create_topic(log)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for index in range(20):
        producer.produce(data, b"x", partition=index % 2)
    assert producer.flush(TIMEOUT_SECONDS) == 0
    kafka.commit_offsets(group, data, {0: 5, 1: 7})
    settings = {"bootstrap.servers": kafka.bootstrap_servers, **QUICK}
    source: OffsetSource = (
        GroupOffsetsSource(settings, groups={group})
        if kind == "group offsets"
        else CommitLogConsumer(settings, topic=Topic(log), groups={group}, start="recent")
    )
    with hanging_commit(kafka, group, {(data, 0): 9}, topic_name("transaction")), running(source) as remote:
        source.assign({(data, 0): 0, (data, 1): 0}, None)
        remote.wait_for(5, 0, data)
        remote.wait_for(7, 1, data)
