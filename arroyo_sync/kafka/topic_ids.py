"""A topic's id as text.

Sources: ``org.apache.kafka.common.Uuid.toString`` writes URL-safe base64 without padding, and so do Kafka's tools;
librdkafka (``rd_kafka_Uuid_base64str``) writes the standard alphabet.
"""

from __future__ import annotations

_URL_SAFE = str.maketrans("+/", "-_")


def canonical_topic_id(text: str) -> str:
    """As Kafka's tools write it, whoever wrote this one.

    >>> canonical_topic_id("e/++77///+8AAAAAPr+/8A==")
    'e_--77___-8AAAAAPr-_8A'
    """
    return text.translate(_URL_SAFE).rstrip("=")
