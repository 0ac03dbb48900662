"""The source that asks the brokers what groups have committed: the same promises as a commit log's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from arroyo_sync.core.errors import BrokersUnreachable, NotReady, SourceDied
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionState
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.committed_offsets import Commits
from arroyo_sync.leaders import group_offsets
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.reading import QUICK, REMOTE_SECONDS, TIMEOUT_SECONDS, running
from tests.integration.cluster.waiting import wait_until

Names = Callable[..., str]


class Field:
    """A data topic of two partitions with a hundred messages each, and two leader groups."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self.kafka = kafka
        self.topic = name
        self.fast, self.slow = f"{name}-fast", f"{name}-slow"
        kafka.create_topic(name, 2)
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        for index in range(200):
            producer.produce(name, b"x", partition=index % 2)
        assert producer.flush(REMOTE_SECONDS) == 0

    def commit(self, group: str, offset: int, partition: int = 0) -> None:
        """As a member of the group would, and like it, again until its coordinator is there."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": group, **QUICK})
        offsets = [TopicPartition(self.topic, partition, offset)]

        def is_committed() -> bool:
            try:
                (committed,) = consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException:
                return False
            return committed.error is None

        try:
            wait_until(is_committed, REMOTE_SECONDS, f"{group} to commit")
        finally:
            consumer.close()

    def source(self, *groups: str, **arguments: Any) -> GroupOffsetsSource:
        configuration = {"bootstrap.servers": self.kafka.bootstrap_servers, **QUICK}
        arguments = {"interval_seconds": 0.05, **arguments}
        return GroupOffsetsSource(configuration, groups=groups or (self.fast, self.slow), **arguments)


@pytest.fixture
def field(kafka: Kafka, topic_name: Names) -> Field:
    return Field(kafka, topic_name("events"))


def test_the_slowest_groups_commit_is_the_remote_offset(field: Field) -> None:
    """And it follows the groups, forwards and back: a rewind is obeyed, counted and logged."""
    field.commit(field.fast, 50)
    field.commit(field.slow, 20)
    source = field.source()
    with running(source) as remote:
        source.assign({(field.topic, 0): 0}, None)
        remote.wait_for(20, topic=field.topic)
        field.commit(field.slow, 60)
        remote.wait_for(50, topic=field.topic)
        remote.manager.set_local_offset(field.topic, 0, 40)
        field.commit(field.fast, 10)
        remote.wait_for(10, topic=field.topic)
        assert remote.manager.partitions[field.topic, 0][0] is SynchronizedPartitionState.REMOTE_BEHIND
        # It is counted after it was obeyed.
        remote.wait_until(lambda: source.statistics().rewinds > 0, "the rewind to be counted")
        assert (source.statistics().rewinds, source.statistics().impossible) == (1, 0)


def test_a_group_that_has_committed_nothing_is_unknown(field: Field) -> None:
    """In that partition, until it does; the source is ready all the same."""
    field.commit(field.fast, 50)
    field.commit(field.slow, 20, partition=1)
    source = field.source()
    with running(source) as remote:
        source.assign({(field.topic, 0): 0, (field.topic, 1): 0}, None)
        wait_until(lambda: source.statistics().read > 4, REMOTE_SECONDS, "the groups to be asked")
        assert (remote.of((field.topic, 0)), remote.of((field.topic, 1))) == (None, None)
        field.commit(field.slow, 20)
        remote.wait_for(20, topic=field.topic)


def test_a_group_whose_commit_is_gone_is_unknown_again(field: Field, kafka: Kafka) -> None:
    """As when the group was deleted."""
    field.commit(field.fast, 50)
    source = field.source(field.fast)
    with running(source) as remote:
        source.assign({(field.topic, 0): 0}, None)
        remote.wait_for(50, topic=field.topic)
        kafka.admin.delete_consumer_groups([field.fast])[field.fast].result(TIMEOUT_SECONDS)
        remote.wait_for(None, topic=field.topic)
        field.commit(field.fast, 51)
        remote.wait_for(51, topic=field.topic)


def test_an_impossible_commit_never_opens_the_gate(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and logged once, however often it is read again, and a possible one counts at once."""
    field.commit(field.fast, 5_000)
    source = field.source(field.fast)
    with running(source) as remote:
        source.assign({(field.topic, 0): 0}, None)
        remote.wait_until(lambda: source.statistics().impossible == 1, "it to be judged")
        read = source.statistics().read
        remote.wait_until(lambda: source.statistics().read > read + 2, "it to be read again")
        assert source.statistics().impossible == 1
        assert {offset for _, offset in remote.history} == {None}
        field.commit(field.fast, 50)
        remote.wait_for(50, topic=field.topic)
    lines = [record for record in caplog.records if "published offset 5000" in record.getMessage()]
    assert [line.levelno for line in lines] == [logging.ERROR]


def test_messages_received_prove_commits(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they prove what is published on a commit log."""
    monkeypatch.setattr("arroyo_sync.leaders.verifier.Verifier.ask", lambda self: 60.0)
    source = field.source(field.fast)
    with running(source) as remote:
        remote.assign(source, 0, reach=0, topic=field.topic)
        field.commit(field.fast, 50)
        remote.wait_until(lambda: bool(source.unverified), "the commit to be read")
        remote.receive(field.topic, 0, 49, source)
        assert remote.of((field.topic, 0)) is None
        remote.receive(field.topic, 0, 50, source)
        assert remote.of((field.topic, 0)) == 50


def test_only_assigned_partitions_are_asked_about_and_others_are_forgotten(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once when they are assigned, however long the interval, and again when they are assigned again."""
    # A question that fails would be asked again after the interval: it is to have the time that it takes.
    monkeypatch.setattr(group_offsets, "TIMEOUT_SECONDS", REMOTE_SECONDS)
    asked: list[list[PartitionKey]] = []
    ask = Asker.ask_committed
    may_ask = threading.Event()
    may_ask.set()

    def record(
        self: Asker,
        group: str,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Commits], None],
    ) -> None:
        asked.append(list(partitions))
        assert may_ask.wait(REMOTE_SECONDS)
        ask(self, group, partitions, timeout, on_answer)

    monkeypatch.setattr(Asker, "ask_committed", record)
    field.commit(field.fast, 50, partition=0)
    field.commit(field.fast, 60, partition=1)
    source = field.source(field.fast, interval_seconds=3_600.0)
    first, second = (field.topic, 0), (field.topic, 1)
    with running(source) as remote:
        source.assign({first: 0}, None)
        remote.wait_for(50, topic=field.topic)
        source.assign({second: 0}, None)
        remote.wait_for(60, 1, field.topic)
        source.revoke([first])
        assert remote.of(first) is None
        assert remote.of(second) == 60
        field.commit(field.fast, 55, partition=0)
        may_ask.clear()
        source.assign({first: 0}, None)
        assert remote.of(first) is None
        may_ask.set()
        remote.wait_for(55, topic=field.topic)
        assert list(source.published()) == [second, first]
    assert asked == [[first], [first, second], [second, first]]


def test_an_answer_from_before_an_assignment_is_not_taken_in(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group has gone back since: the old commit never shows."""
    field.commit(field.fast, 50)
    source = field.source(field.fast)
    key = (field.topic, 0)
    ask = Asker.ask_committed
    is_first = True

    def ask_and_assign(
        self: Asker,
        group: str,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Commits], None],
    ) -> None:
        def assign_before(answer: Commits) -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                field.commit(field.fast, 30)
                source.assign({key: 0}, None)
            on_answer(answer)

        ask(self, group, partitions, timeout, assign_before)

    monkeypatch.setattr(Asker, "ask_committed", ask_and_assign)
    with running(source) as remote:
        source.assign({key: 0}, None)
        remote.wait_for(30, topic=field.topic)
        assert (key, 50) not in remote.history


def test_a_broker_that_restarts_is_ridden_out(
    kafka_cluster: Callable[..., KafkaCluster], caplog: pytest.LogCaptureFixture
) -> None:
    """What the groups had committed stays in force meanwhile, and one line says that they can't be asked.

    (Asked with an administrator's client, the process would be aborted here by librdkafka.)
    """
    cluster = kafka_cluster()
    field = Field(cluster, "events")
    field.commit(field.fast, 50)
    source = field.source(field.fast)
    with running(source) as remote:
        source.assign({("events", 0): 0}, None)
        remote.wait_for(50)
        cluster.brokers[0].kill()
        remote.wait_until(lambda: any("can't ask" in each.getMessage() for each in caplog.records), "a line")
        source.check()
        assert remote[0] == 50
        cluster.brokers[0].start()
        cluster.wait_until_ready()
        field.commit(field.fast, 60)
        remote.wait_for(60)


def test_unreachable_brokers_end_it_after_a_bounded_time() -> None:
    """With the address and the reason."""
    configuration = {"bootstrap.servers": "127.0.0.1:1", **QUICK}
    source = GroupOffsetsSource(configuration, groups={"g"}, connect_timeout=3_600.0)
    with running(source, is_ready=False), pytest.raises(NotReady, match=r"an answer of 127\.0\.0\.1:1"):
        source.wait_until_ready(0.0)
    source = GroupOffsetsSource(configuration, groups={"g"}, connect_timeout=1.0)
    with running(source, is_ready=False):
        with pytest.raises(SourceDied, match=r"no broker of 127\.0\.0\.1:1 answered within 1 s") as died:
            source.wait_until_ready(TIMEOUT_SECONDS)
        assert isinstance(died.value.__cause__, BrokersUnreachable)
