"""A topic's id as text, and for how long it counts.

Sources: ``org.apache.kafka.common.Uuid.toString`` writes URL-safe base64 without padding, and so do Kafka's tools;
librdkafka (``rd_kafka_Uuid_base64str``) writes the standard alphabet.
"""

from __future__ import annotations

FORGET_SECONDS = 600.0
"""After so long without a partition of a topic, follower or leader, its id says nothing any more: who is given one then
begins as after a restart. The slowest rebalance takes less (``max.poll.interval.ms``, by default five minutes)."""

_URL_SAFE = str.maketrans("+/", "-_")


def canonical_topic_id(text: str) -> str:
    """As Kafka's tools write it, whoever wrote this one.

    >>> canonical_topic_id("e/++77///+8AAAAAPr+/8A==")
    'e_--77___-8AAAAAPr-_8A'
    """
    return text.translate(_URL_SAFE).rstrip("=")
