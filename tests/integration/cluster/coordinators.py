"""Which broker coordinates a consumer group, found without asking for it: such a question may abort the process."""

from __future__ import annotations

from tests.integration.cluster.admin import TIMEOUT_SECONDS, Kafka

OFFSETS_TOPIC = "__consumer_offsets"


def coordinator_of(kafka: Kafka, group: str) -> int:
    """The node id of the broker that leads the group's partition of ``__consumer_offsets``, which must exist."""
    topic = kafka.admin.list_topics(OFFSETS_TOPIC, timeout=TIMEOUT_SECONDS).topics[OFFSETS_TOPIC]
    return topic.partitions[java_hash(group) % len(topic.partitions)].leader


def group_coordinated_by(kafka: Kafka, node_id: int, prefix: str = "group") -> str:
    """The name of a group that has this broker for its coordinator, as every broker knows by then."""
    kafka.wait_for_leaders(OFFSETS_TOPIC)
    names = (f"{prefix}-{number}" for number in range(1_000))
    return next(name for name in names if coordinator_of(kafka, name) == node_id)


def java_hash(text: str) -> int:
    """As Kafka finds a group's partition: ``Utils.abs(groupId.hashCode())``."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF
