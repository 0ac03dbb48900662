"""A topic's and a cluster's id as text, and when they count.

Sources: ``org.apache.kafka.common.Uuid.toString`` writes URL-safe base64 without padding, and so do Kafka's tools;
librdkafka (``rd_kafka_Uuid_base64str``) writes the standard alphabet.
"""

from __future__ import annotations

FORGET_SECONDS = 600.0
"""After so long without a partition of a topic, follower or leader, its id says nothing any more: who is given one then
begins as after a restart. The slowest rebalance takes less (``max.poll.interval.ms``, by default five minutes)."""

_NO_CLUSTER_YET = "redpanda.initializing"
"""What a young cluster of Redpanda's answers until it has an id (its ``kafka/server/handlers/metadata.cc``)."""

_URL_SAFE = str.maketrans("+/", "-_")


def canonical_topic_id(text: str) -> str:
    """As Kafka's tools write it, whoever wrote this one.

    >>> canonical_topic_id("e/++77///+8AAAAAPr+/8A==")
    'e_--77___-8AAAAAPr-_8A'
    """
    return text.translate(_URL_SAFE).rstrip("=")


def settled_cluster_id(text: str | None) -> str | None:
    """The cluster's id, if it has one already."""
    return None if text == _NO_CLUSTER_YET else text
