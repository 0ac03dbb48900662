"""Two real clusters, with a topic of the same name on both: the follower reads one, and its source asks the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from arroyo.types import Topic
from confluent_kafka import Producer

from arroyo_sync import CommitLogConsumer, ConfigurationError, GroupOffsetsSource, SourceDied
from arroyo_sync.leaders.offset_source import OffsetSource
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import NEVER_MISSED, KafkaCluster
from tests.integration.cluster.followers import Follower, consumer_settings
from tests.integration.cluster.reading import CommitLog

Names = Callable[..., str]
TIMEOUT_SECONDS = 60.0


@pytest.fixture(scope="module")
def data(java_and_maven: None) -> Iterator[KafkaCluster]:
    """The follower's. No test kills its broker."""
    with KafkaCluster(properties=NEVER_MISSED) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", ["commit log", "group offsets"])
@pytest.mark.parametrize("protocol", ["eager", "kip848"])
def test_a_topic_of_that_name_on_the_other_cluster_is_not_mistaken_for_it(
    data: KafkaCluster, kafka: Kafka, topic_name: Names, kind: str, protocol: str
) -> None:
    """It is empty there: the follower ended with PartitionTruncated, and its group's commits were set back to 0."""
    topic, log, group = topic_name("events"), topic_name("commit-log"), topic_name("follower")
    for each in (data, kafka):
        each.create_topic(topic)
    kafka.create_topic(log)
    producer = Producer({"bootstrap.servers": data.bootstrap_servers})
    for _ in range(20):
        producer.produce(topic, b"x")
    assert producer.flush(TIMEOUT_SECONDS) == 0
    data.commit_offsets(group, topic, {0: 15})
    CommitLog(kafka, log).publish(20, topic=topic)
    other: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers}
    source: OffsetSource = (
        CommitLogConsumer(other, topic=Topic(log), groups={"g"})
        if kind == "commit log"
        else GroupOffsetsSource(other, groups={"g"})
    )
    follower = Follower(consumer_settings(data.bootstrap_servers, group, protocol), topic, source=source)
    follower.start()
    error = follower.wait_until_ended(TIMEOUT_SECONDS)
    assert isinstance(error, SourceDied)
    assert isinstance(error.__cause__, ConfigurationError)
    assert "Give the source the settings of the follower's consumer" in str(error)
    assert (follower.received, data.committed_offsets(group, topic)) == ([], {0: 15})
