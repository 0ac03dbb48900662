"""``group.protocol=consumer`` on a broker that doesn't know it: one clear line, where librdkafka waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition, Topic

from arroyo_sync import ConfigurationError, GroupOffsetsSource, SynchronizedStrategyFactory
from arroyo_sync.gate.consumer.rebalance_protocol import broker_without_kip848
from tests.integration.cluster import jars
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import KafkaCluster

IS_OLD = jars.major(jars.version()) < 4


class Steps(ProcessingStrategyFactory[KafkaPayload]):
    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return CommitOffsets(commit)


def run(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """A follower under KIP-848."""
    events = topic_name("events")
    kafka.create_topic(events)
    configuration = {"bootstrap.servers": kafka.bootstrap_servers}
    factory = SynchronizedStrategyFactory(Steps(), GroupOffsetsSource(configuration, groups={topic_name("leader")}))
    consumer = factory.consumer({**configuration, "group.id": topic_name("follower"), "group.protocol": "consumer"})
    StreamProcessor(consumer, Topic(events), factory).run()


def test_kip848_is_refused_on_a_broker_that_does_not_know_it(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """The processor ends with the broker's address and what to do. A newer broker isn't refused."""
    if not IS_OLD:
        assert broker_without_kip848({"bootstrap.servers": kafka.bootstrap_servers}, 30.0) is None
        return
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:\d+ doesn't know group\.protocol=consumer .*4\.0"):
        run(kafka, topic_name)


def test_a_broker_of_several_that_does_not_serve_kip848_is_found(kafka_cluster: Callable[..., KafkaCluster]) -> None:
    """librdkafka tells the settings of one broker a call, so nothing was known of any."""
    cluster = kafka_cluster(brokers=2, properties={"group.coordinator.rebalance.protocols": "classic"})
    servers = cluster.bootstrap_servers
    assert broker_without_kip848({"bootstrap.servers": servers}, 30.0) in servers.split(",")
