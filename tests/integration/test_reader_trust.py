"""Offsets that can't be true, on a real broker: they never open the gate, and those that are true always do."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import BrokerValue, Message, Partition, Topic
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from arroyo_sync.core.errors import SourceDied, TopicRecreated
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.gate.partition_buffers import PartitionBuffers
from arroyo_sync.kafka.arroyo_consumer import KafkaWatermarks
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.leaders import verifier
from arroyo_sync.leaders.commit_log import reader as commit_log_reader
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.reading import TIMEOUT_SECONDS, CommitLog, reading
from tests.integration.cluster.waiting import wait_until

Names = Callable[..., str]


class DataTopic:
    """A data topic of one partition."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self.kafka = kafka
        self.name = name
        self.key = (name, 0)
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0})
        kafka.create_topic(name)

    def grow(self, messages: int) -> None:
        for _ in range(messages):
            self._producer.produce(self.name, b"x", partition=0)
        assert self._producer.flush(TIMEOUT_SECONDS) == 0

    def recreate(self) -> None:
        self.kafka.recreate_topic(self.name)
        self._producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 0})


@contextmanager
def client(kafka: Kafka) -> Iterator[Consumer]:
    """The follower's own."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "follower"})
    try:
        yield consumer
    finally:
        consumer.close()


@pytest.fixture
def data(kafka: Kafka, topic_name: Names) -> DataTopic:
    return DataTopic(kafka, topic_name("events"))


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> dict[PartitionKey, list[float]]:
    """When the broker was asked about each partition; not without need. Without what it didn't answer, as while it
    stands still: that is rightly asked again."""
    asked: dict[PartitionKey, list[float]] = defaultdict(list)
    ask, ask_due = Asker.ask_ranges, verifier.Verifier._ask_due
    now = 0.0

    def note_now(self: verifier.Verifier, begins_at: float) -> float:
        nonlocal now
        now = begins_at  # by which it asks: the thread may stand still before it does
        return ask_due(self, begins_at)

    def record(
        self: Asker,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, PartitionRange | KafkaError]], None],
        **keywords: bool,
    ) -> None:
        asked_at = now
        for topic, partition in partitions:
            asked[topic, partition].append(asked_at)

        def forget_unanswered(answers: Mapping[PartitionKey, PartitionRange | KafkaError]) -> None:
            for key, each in answers.items():
                if isinstance(each, KafkaError) or not (each.is_first_known or each.is_look_up_pending):
                    asked[key].remove(asked_at)
            on_answer(answers)

        ask(self, partitions, timeout, forget_unanswered, **keywords)

    monkeypatch.setattr(Asker, "ask_ranges", record)
    monkeypatch.setattr(verifier.Verifier, "_ask_due", note_now)
    monkeypatch.setattr(verifier, "REFRESH_SECONDS", 3_600.0)
    return asked


def test_a_data_topic_created_again_before_the_follower_starts_keeps_the_gate_shut(
    kafka: Kafka, data: DataTopic, log: CommitLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the group whose offset is impossible, counted and logged, until it publishes a possible one."""
    data.grow(100)
    log.publish(100, group="a", topic=data.name)
    log.publish(3, group="b", topic=data.name)
    data.recreate()
    data.grow(5)
    with reading(kafka, log.topic, "a", "b") as (source, remote):
        remote.history.clear()
        source.assign({data.key: 0}, None)
        assert remote.of(data.key) is None, "nothing of it is proven"
        remote.wait_until(lambda: source.statistics().impossible == 1, "the broker to be asked")
        remote.receive(*data.key, 5, source)
        data.grow(200)
        remote.receive(*data.key, 205, source)
        log.publish(4, group="b", topic=data.name)
        wait_until(lambda: source.statistics().read == 3, TIMEOUT_SECONDS, "the record to be read")
        assert remote.of(data.key) is None, "nor when the topic has grown past it"
        log.publish(2, group="a", topic=data.name)
        remote.wait_for(2, topic=data.name)
    assert {offset for key, offset in remote.history if key == data.key} == {None, 2}
    line = next(record for record in caplog.records if "published offset 100" in record.getMessage())
    assert line.levelno == logging.ERROR
    assert line.getMessage().startswith(f"{data.name}[0]: group 'a' published offset 100, but the partition ends at 5")


def test_a_data_topic_created_again_while_the_follower_runs_ends_the_source(
    kafka: Kafka, data: DataTopic, log: CommitLog
) -> None:
    """Nothing is in force any more, and the gate raises why."""
    data.grow(100)
    with reading(kafka, log.topic) as (source, remote):
        source.assign({data.key: 0}, None)
        remote.receive(*data.key, 100, source)
        log.publish(100, topic=data.name)
        remote.wait_for(100, topic=data.name)
        wait_until(lambda: bool(source._verifier._topics.ids), TIMEOUT_SECONDS, "it to know the topic's id")
        data.recreate()
        wait_until(lambda: remote.manager.failure is not None, TIMEOUT_SECONDS, "the source to notice")
        with pytest.raises(TopicRecreated, match=f"topic '{data.name}' was deleted and created again"):
            remote.manager.check()
        remote.wait_for(None, topic=data.name)
        with pytest.raises(SourceDied):
            source.check()


def test_true_offsets_of_a_partition_that_was_just_assigned_count_at_once(
    kafka: Kafka, data: DataTopic, log: CommitLog, questions: dict[PartitionKey, list[float]]
) -> None:
    """One question settles it, before a single message was received."""
    data.grow(100)
    log.publish(70, topic=data.name)
    with reading(kafka, log.topic) as (source, remote):
        assert remote.of(data.key) == 70, "not assigned: it gates nothing"
        source.assign({data.key: 0}, None)
        remote.wait_for(70, topic=data.name)
        assert len(questions[data.key]) == 1


def test_a_follower_that_tails_asks_once(
    kafka: Kafka, data: DataTopic, log: CommitLog, questions: dict[PartitionKey, list[float]]
) -> None:
    """At the assignment. What it received verifies what is published afterwards, and what it receives verifies what was
    published before."""
    with reading(kafka, log.topic) as (source, remote):
        source.assign({data.key: 0}, None)
        remote.wait_until(lambda: not source._offsets.unanswered(), "the first answer")
        for offset in range(1, 51):
            data.grow(1)
            remote.receive(*data.key, offset, source)
            log.publish(offset, topic=data.name)
            remote.wait_for(offset, topic=data.name)
    assert len(questions[data.key]) == 1


def test_a_follower_that_lags_asks_at_most_once_a_second(
    kafka: Kafka, data: DataTopic, log: CommitLog, questions: dict[PartitionKey, list[float]]
) -> None:
    """However fast its leaders go on; and all that is possible comes into force."""
    stop = threading.Event()

    def lead() -> None:
        for offset in range(1, 100_000):
            if stop.is_set():
                return
            data.grow(1)
            log.publish(offset, topic=data.name)

    thread = threading.Thread(target=lead)
    with reading(kafka, log.topic) as (source, remote):
        source.assign({data.key: 0}, None)
        thread.start()
        try:
            wait_until(lambda: len(questions[data.key]) >= 4, TIMEOUT_SECONDS, "four questions")
            remote.wait_until(lambda: (remote.of(data.key) or 0) > 1, "what was asked about to be in force")
        finally:
            stop.set()
            thread.join(TIMEOUT_SECONDS)
        assert source.statistics().impossible == 0
    times = questions[data.key][1:]  # the one at the assignment comes when the commit log's ends are known
    assert all(later - earlier >= 0.99 * verifier.INTERVAL_SECONDS for earlier, later in itertools.pairwise(times))


def test_what_the_followers_own_client_has_fetched_proves_what_is_published(
    kafka: Kafka, data: DataTopic, log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no further question: every fetch tells it where the partition ends."""
    with client(kafka) as consumer, reading(kafka, log.topic) as (source, remote):
        source.assign({data.key: 0}, KafkaWatermarks(consumer))
        remote.wait_until(lambda: not source._offsets.unanswered(), "the first answer")
        monkeypatch.setattr(verifier.Verifier, "ask", lambda self: 60.0)
        data.grow(100)
        log.publish(70, topic=data.name)
        remote.wait_until(lambda: bool(source.unverified), "the record to be read")
        source.refresh_known_ends()
        assert remote.of(data.key) is None, "nothing was fetched yet"
        consumer.assign([TopicPartition(data.name, 0, 0)])
        assert consumer.poll(TIMEOUT_SECONDS) is not None

        def is_in_force(offset: int) -> bool:
            source.refresh_known_ends()  # which spends at most a hundredth of its time on this
            return remote.of(data.key) == offset

        remote.wait_until(lambda: is_in_force(70), "the gate to read remote offsets")
        data.grow(100)
        log.publish(150, topic=data.name)
        remote.wait_until(lambda: bool(source.unverified), "the record to be read")
        remote.wait_until(lambda: is_in_force(150), "the gate to read them again")


def test_a_sought_offset_lets_no_impossible_report_through(kafka: Kafka, data: DataTopic, log: CommitLog) -> None:
    """The partition ends at 2, whatever the follower seeks."""
    data.grow(2)
    with reading(kafka, log.topic) as (source, remote):
        source.assign({data.key: 0}, None)
        partition = Partition(Topic(data.name), 0)
        buffers = PartitionBuffers(
            remote.manager,
            source,
            {partition: 0},
            limits=HoldLimits(),
            report_interval_seconds=0.0,
            watermarks=None,
            clock=time.monotonic,
        )
        for offset in range(2):
            value = BrokerValue(KafkaPayload(None, b"x", []), partition, offset, datetime(2024, 1, 1))
            buffers.hold(buffers.by_index[0], offset, Message(value))
        log.publish(2, topic=data.name)
        remote.wait_for(2, topic=data.name)
        buffers.seek(partition, 900)
        remote.history.clear()
        log.publish(900, topic=data.name)

        def is_rejected() -> bool:
            buffers.refresh_remote_offsets()
            buffers.report_local_offsets()
            return source.statistics().impossible == 1

        remote.wait_until(is_rejected, "the report to be rejected")
        assert {offset for key, offset in remote.history if key == data.key} <= {2, None}


def test_a_data_topic_that_is_not_where_it_is_asked_for_is_said_so(
    kafka: Kafka, log: CommitLog, topic_name: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """The gate stays shut, and the line says what to give."""
    elsewhere = topic_name("elsewhere")
    log.publish(5, topic=elsewhere)
    with reading(kafka, log.topic) as (source, remote):
        source.assign({(elsewhere, 0): 0}, None)
        remote.wait_until(
            lambda: any("data_configuration" in each.getMessage() for each in caplog.records), "a line that says it"
        )
        assert remote.of((elsewhere, 0)) is None
        assert source.statistics().impossible == 0


def test_data_configuration_says_where_the_data_topic_is(kafka: Kafka, data: DataTopic, log: CommitLog) -> None:
    """It is the one that is asked."""
    data.grow(10)
    log.publish(5, topic=data.name)
    configuration = {"bootstrap.servers": kafka.bootstrap_servers}
    with reading(kafka, log.topic, data_configuration=configuration) as (source, remote):
        source.assign({data.key: 0}, None)
        remote.wait_for(5, topic=data.name)


def test_what_is_reported_on_a_commit_log_that_was_created_anew_counts(
    data: DataTopic, log: CommitLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records lie below where the earlier log ended, and are yet younger than what the brokers answered before."""
    monkeypatch.setattr(commit_log_reader, "MISSING_SECONDS", TIMEOUT_SECONDS)
    data.grow(10)
    for _ in range(20):
        log.publish(5, topic=data.name)
    with reading(data.kafka, log.topic) as (source, remote):
        source.assign({data.key: 0}, None)
        remote.wait_for(5, topic=data.name)
        data.kafka.recreate_topic(log.topic)
        remote.wait_until(lambda: remote.of(data.key) is None, "the reader to begin anew")
        data.grow(10)
        CommitLog(data.kafka, log.topic).publish(15, topic=data.name)
        remote.wait_for(15, topic=data.name)
        assert source.statistics().impossible == 0
    assert not [each for each in caplog.records if "ends at" in each.getMessage()]
