"""What can be done to topics, records and groups, each thing shown once on the real broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, Producer

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.clients import WAIT_SECONDS, GroupMember, produce

MakeName = Callable[..., str]


class TestTopics:
    def test_a_created_topic_can_be_used_at_once(self, kafka: Kafka, topic_name: MakeName) -> None:
        """The partitions, the settings and the leaders are there when the call returns."""
        topic = topic_name()
        kafka.create_topic(topic, partitions=3, config={"cleanup.policy": "compact,delete"})
        assert kafka.watermarks(topic) == {0: (0, 0), 1: (0, 0), 2: (0, 0)}
        assert kafka.topic_config(topic)["cleanup.policy"] == "compact,delete"

    def test_a_setting_can_be_changed(self, kafka: Kafka, topic_name: MakeName) -> None:
        """A changed setting of a topic is what the broker reports."""
        topic = topic_name()
        kafka.create_topic(topic)
        kafka.set_topic_config(topic, {"retention.ms": "1234"})
        assert kafka.topic_config(topic)["retention.ms"] == "1234"

    def test_partitions_can_be_added(self, kafka: Kafka, topic_name: MakeName) -> None:
        """A topic grows and keeps its records."""
        topic = topic_name()
        kafka.create_topic(topic)
        produce(kafka.bootstrap_servers, topic, ["a"])
        kafka.add_partitions(topic, 3)
        assert kafka.watermarks(topic) == {0: (0, 1), 1: (0, 0), 2: (0, 0)}

    def test_a_topic_can_be_deleted_and_created_again(self, kafka: Kafka, topic_name: MakeName) -> None:
        """The new topic of the old name is empty and starts at offset 0."""
        topic = topic_name()
        kafka.create_topic(topic, partitions=2)
        produce(kafka.bootstrap_servers, topic, ["a", "b"])
        kafka.recreate_topic(topic)
        assert kafka.watermarks(topic) == {0: (0, 0), 1: (0, 0)}
        kafka.delete_topic(topic)
        assert topic not in kafka.admin.list_topics(timeout=WAIT_SECONDS).topics

    def test_records_can_be_deleted(self, kafka: Kafka, topic_name: MakeName) -> None:
        """The first offset moves up to the one named."""
        topic = topic_name()
        kafka.create_topic(topic)
        produce(kafka.bootstrap_servers, topic, ["a", "b", "c"])
        kafka.delete_records(topic, {0: 2})
        assert kafka.watermarks(topic) == {0: (2, 3)}

    def test_topics_are_never_created_by_accident(self, kafka: Kafka, topic_name: MakeName) -> None:
        """Writing to a topic that doesn't exist fails, so that a wrong name shows."""
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "topic.metadata.propagation.max.ms": 300})
        errors: list[KafkaError | None] = []
        producer.produce(topic_name(), "a", on_delivery=lambda error, _: errors.append(error))
        assert producer.flush(WAIT_SECONDS) == 0
        (error,) = errors
        assert error is not None
        assert "UNKNOWN_TOPIC" in error.name()  # the broker's word, or librdkafka's, whichever is first


class TestGroups:
    @pytest.mark.parametrize(
        "config",
        [
            pytest.param({"group.protocol": "consumer"}, id="kip-848"),
            pytest.param({"partition.assignment.strategy": "range"}, id="eager"),
        ],
    )
    def test_a_second_member_takes_its_share(self, kafka: Kafka, topic_name: MakeName, config: dict[str, str]) -> None:
        """Both rebalance protocols work: a joining member gets half, and its leaving gives it back."""
        topic, group = topic_name(), topic_name("group")
        kafka.create_topic(topic, partitions=2)
        config = {**config, "group.id": group}
        if "group.protocol" not in config:
            config["heartbeat.interval.ms"] = "300"
        with GroupMember(kafka.bootstrap_servers, topic, **config) as first:
            first.poll_until(lambda: first.partitions() == {0, 1}, "the first to have both partitions")
            with GroupMember(kafka.bootstrap_servers, topic, **config) as second:

                def is_shared() -> bool:
                    second.poll()
                    return len(first.partitions()) == len(second.partitions()) == 1

                first.poll_until(is_shared, "each to have one")
            first.poll_until(lambda: first.partitions() == {0, 1}, "the first to have both again")

    def test_committed_offsets_can_be_set_and_read(self, kafka: Kafka, topic_name: MakeName) -> None:
        """A group without members can be moved, forwards and back."""
        topic, group = topic_name(), topic_name("group")
        kafka.create_topic(topic, partitions=2)
        kafka.commit_offsets(group, topic, {0: 7})
        assert kafka.committed_offsets(group, topic) == {0: 7}
        kafka.commit_offsets(group, topic, {0: 3})
        assert kafka.committed_offsets(group, topic) == {0: 3}
