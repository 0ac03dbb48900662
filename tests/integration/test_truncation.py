"""A data topic that is truncated by an unclean election, on three real brokers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import pytest
from arroyo.backends.kafka import KafkaConsumer
from arroyo.types import Partition, Topic
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import PartitionMetadata

from arroyo_sync import CommitLogConsumer, HoldLimits, PartitionTruncated
from arroyo_sync.gate.consumer import beginning_questions
from arroyo_sync.kafka.arroyo_consumer import first_offset_since
from arroyo_sync.leaders import verifier
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.broker import Broker
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.followers import Follower, consumer_settings
from tests.integration.cluster.reading import CommitLog, reading
from tests.integration.cluster.waiting import wait_until

TIMEOUT_SECONDS = 120.0
TOPIC = "events"
KEY = (TOPIC, 0)


def grow(kafka: KafkaCluster, count: int, partitions: Collection[int] = (0,), age_seconds: float = 0.0) -> None:
    """Each message is on all replicas that are in sync."""
    timestamp_ms = round((time.time() - age_seconds) * 1000)
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "acks": "all",
            "linger.ms": 0,
            "reconnect.backoff.max.ms": 200,
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    for partition in partitions:
        for _ in range(count):
            producer.produce(TOPIC, b"x", partition=partition, timestamp=timestamp_ms)
    assert producer.flush(TIMEOUT_SECONDS) == 0


class Replicas:
    """Who leads the data topic's partitions, all of which have the same replicas, and who follows."""

    def __init__(self, kafka: KafkaCluster) -> None:
        self._kafka = kafka

    def _partitions(self) -> list[PartitionMetadata]:
        return list(self._kafka.admin.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions.values())

    @property
    def leader(self) -> Broker:
        return self._broker(self._partitions()[0].leader)

    @property
    def other(self) -> Broker:
        partition = self._partitions()[0]
        (other,) = set(partition.replicas) - {partition.leader}
        return self._broker(other)

    def wait_for(self, leader: Broker, in_sync: set[int]) -> None:
        def is_so() -> bool:
            with suppress(KafkaException):  # asked of the broker that was just killed
                return all((each.leader, set(each.isrs)) == (leader.node_id, in_sync) for each in self._partitions())
            return False

        wait_until(is_so, TIMEOUT_SECONDS, f"broker {leader.node_id} to lead, {in_sync} in sync")

    def _broker(self, node_id: int) -> Broker:
        return next(each for each in self._kafka.brokers if each.node_id == node_id)


def wait_until_told(source: CommitLogConsumer, ends: Mapping[int, int]) -> None:
    """The brokers have told it how far these partitions reach: what it has received of them says less."""

    def known() -> dict[int, int]:
        return {key[1]: each.end for key, each in source._offsets._assigned.known_ends.copy().items()}

    wait_until(lambda: known() == ends, TIMEOUT_SECONDS, lambda: f"the ends {ends} to be known, which are {known()}")


def test_what_an_unclean_election_took_away_is_not_released_again_without_its_leader(
    kafka_cluster: Callable[..., KafkaCluster], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader was at 100; the partition ends at 60 and grows by 40 that it never saw. Its next report counts.

    A follower that holds messages past 60 ends: they are gone, and others come at their offsets. (While it fetches,
    librdkafka ends it, by the leader epoch; this one is full.)
    """
    monkeypatch.setattr(verifier, "REFRESH_SECONDS", 2.0)
    monkeypatch.setattr(beginning_questions, "LOOK_BACK_SECONDS", 0.0)  # all here is young
    kafka = kafka_cluster(3, min_insync_replicas=1)
    settings = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    kafka.create_topic(TOPIC, config=settings, replication=2)
    kafka.create_topic("commit-log")
    log = CommitLog(kafka, "commit-log")
    grow(kafka, 60)
    kafka.wait_until_in_sync()
    replicas = Replicas(kafka)
    first, second = replicas.leader, replicas.other
    second.kill()
    replicas.wait_for(first, {first.node_id})
    grow(kafka, 40)
    log.publish(45, topic=TOPIC, group="slow")
    follows = {**consumer_settings(kafka.bootstrap_servers, "follower", "eager"), "session.timeout.ms": 120_000}
    slow = CommitLogConsumer(follows, topic=Topic(log.topic), groups={"slow"})
    follower = Follower(follows, TOPIC, source=slow, limits=HoldLimits(messages=50, resume_messages=10))
    with reading(kafka, log.topic) as (source, remote):
        follower.start()
        follower.wait_until_received(45)
        wait_until(lambda: follower.held == 50, TIMEOUT_SECONDS, "it is full")
        wait_until(
            lambda: kafka.committed_offsets("follower", TOPIC) == {0: 45},
            TIMEOUT_SECONDS,
            "its commit, while it can be",
        )
        source.assign({KEY: 0}, None)  # a follower that has read nothing yet
        log.publish(100, topic=TOPIC)
        remote.wait_for(100, topic=TOPIC)

        first.kill()
        second.start()
        replicas.wait_for(second, {second.node_id})
        wait_until(
            lambda: any("ends at 60, though it reached to 100" in each.getMessage() for each in caplog.records),
            TIMEOUT_SECONDS,
            "the truncation to be told",
        )
        remote.history.clear()  # until then it is written more than once: a partition's answer comes in parts
        error = follower.wait_until_ended(TIMEOUT_SECONDS)
        assert isinstance(error, PartitionTruncated)
        assert (error.ends, error.read_to) == ({0: 60}, {0: 95})
        assert kafka.committed_offsets("follower", TOPIC) == {0: 45}
        grow(kafka, 40)
        asked = len(caplog.records)
        wait_until(lambda: kafka.watermarks(TOPIC)[0] == (0, 100), TIMEOUT_SECONDS, "the partition to be as long again")
        remote.receive(TOPIC, 0, 100, source)
        written = len(remote.history)
        wait_until(
            lambda: any(key == KEY for key, _ in remote.history[written:]), TIMEOUT_SECONDS, "an answer since then"
        )
        assert remote.of(KEY) is None, "though it reaches that far again"
        assert {offset for key, offset in remote.history if key == KEY} == {None}
        assert source.statistics().impossible == 1
        log.publish(60, topic=TOPIC)
        remote.wait_for(60, topic=TOPIC)
        log.publish(95, topic=TOPIC)
        remote.wait_for(95, topic=TOPIC)
        assert not [each for each in caplog.records[asked:] if each.levelno >= logging.ERROR]


def test_where_young_messages_begin_is_asked_of_the_brokers(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    topic = topic_name("events")
    kafka.create_topic(topic, config={"retention.ms": "-1"})  # the messages are of 1970
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for timestamp_ms in (1_000, 2_000, 3_000):
        producer.produce(topic, b"x", partition=0, timestamp=timestamp_ms)
    assert producer.flush(TIMEOUT_SECONDS) == 0
    consumer = KafkaConsumer(consumer_settings(kafka.bootstrap_servers, topic_name("follower"), "eager"))
    try:
        found = [first_offset_since(consumer, Partition(Topic(topic), 0), ms, 30.0) for ms in (0, 2_000, 2_001, 3_001)]
        assert found == [0, 1, 2, None]
        with pytest.raises(KafkaException):
            first_offset_since(consumer, Partition(Topic(topic), 7), 0, 1.0)
    finally:
        consumer.close()


def test_what_followers_hold_of_before_ends_them_though_the_partitions_have_grown_past_it(
    kafka_cluster: Callable[..., KafkaCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each partition reached to 100, and a follower has read 95 of it; they were cut to 60, and end at 97 once they can
    be asked about again.

    What is held lies below that end, and isn't what lies there now: it would go downstream with its leader's next
    report, and what has come in its place never. The group goes on where that begins, below what it has committed. The
    second follower notices as it is assigned its own partition anew, since the first one has ended.
    """
    kafka = kafka_cluster(3, min_insync_replicas=1)
    settings = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    first, second, _ = kafka.brokers
    pair = [first.node_id, second.node_id]
    kafka.create_topic(TOPIC, 2, config=settings, replicas=[pair, pair])
    kafka.create_topic("commit-log")
    log = CommitLog(kafka, "commit-log")
    replicas = Replicas(kafka)
    grow(kafka, 60, partitions=(0, 1), age_seconds=3600.0)
    kafka.wait_until_in_sync()
    second.kill()
    replicas.wait_for(first, {first.node_id})
    grow(kafka, 40, partitions=(0, 1))
    for partition in (0, 1):
        log.publish(80, partition, topic=TOPIC, group="slow")
    follows = {**consumer_settings(kafka.bootstrap_servers, "follower", "eager"), "session.timeout.ms": 120_000}
    sources = [CommitLogConsumer(follows, topic=Topic(log.topic), groups={"slow"}) for _ in range(2)]
    limits = HoldLimits(messages=15, resume_messages=3)
    one = Follower(follows, TOPIC, source=sources[0], limits=limits)
    one.start()
    one.wait_until_received(160)
    wait_until(
        lambda: kafka.committed_offsets("follower", TOPIC) == {0: 80, 1: 80}, TIMEOUT_SECONDS, "what it has committed"
    )
    other = Follower(follows, TOPIC, source=sources[1], limits=limits)
    other.start()
    wait_until(lambda: (one.held, other.held) == (15, 15), TIMEOUT_SECONDS, "each to be full of one partition")
    for source, follower in zip(sources, (one, other), strict=True):
        wait_until_told(source, dict.fromkeys(follower.assigned, 100))
    monkeypatch.setattr(verifier, "REFRESH_SECONDS", 1e6)
    monkeypatch.setattr(sources[1]._verifier, "_refreshed_at", math.inf)

    first.kill()
    second.start()
    replicas.wait_for(second, {second.node_id})
    grow(kafka, 37, partitions=(0, 1))
    (index,), (its,) = other.assigned, one.assigned
    monkeypatch.setattr(verifier, "REFRESH_SECONDS", 1.0)
    error = one.wait_until_ended(TIMEOUT_SECONDS)
    assert isinstance(error, PartitionTruncated)
    assert (error.ends, error.read_to) == ({its: 97}, {its: 95})
    error = other.wait_until_ended(TIMEOUT_SECONDS)
    assert isinstance(error, PartitionTruncated)
    assert error.ends == {index: 97}
    assert kafka.committed_offsets("follower", TOPIC) == {0: 60, 1: 60}
    assert {offset for follower in (one, other) for _, offset in follower.received} == set(range(80))
