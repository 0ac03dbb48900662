"""What is needed of Arroyo's Kafka consumer and not public there: the one place that touches its private attributes.

Where an attribute is missing (another Arroyo, another consumer), the answer is ``None``, and the package goes on
without: nothing is proven from the client's cache, every partition may be a retained one, and the group isn't compared.
If an Arroyo ``KafkaConsumer`` lacks one, that is logged once, since the versions that are supported have all.

Threads: any; nothing here blocks or calls the broker.

Source: ``arroyo/backends/kafka/consumer.py``, 2.38.5 to 2.48.0 (``tests/unit/kafka/test_arroyo_consumer.py`` holds the
installed version against it).
"""

from __future__ import annotations

import logging
import time

import confluent_kafka
from arroyo.backends.kafka import KafkaConsumer

from arroyo_sync.core.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

PRIVATE_ATTRIBUTES = ("_KafkaConsumer__consumer", "_KafkaConsumer__is_kip848", "_KafkaConsumer__group_id")
"""Of ``KafkaConsumer``, as Python mangles their names."""

_throttle = LogThrottle(float("inf"), time.monotonic)


def client_of(consumer: object) -> confluent_kafka.Consumer | None:
    """The confluent-kafka client behind Arroyo's consumer, whose cached end offsets are wanted."""
    client = _private(consumer, PRIVATE_ATTRIBUTES[0])
    return client if isinstance(client, confluent_kafka.Consumer) else None


def is_kip848(consumer: object) -> bool | None:
    """Whether the consumer follows KIP-848 (``group.protocol=consumer``), under which partitions are retained."""
    answer = _private(consumer, PRIVATE_ATTRIBUTES[1])
    return answer if isinstance(answer, bool) else None


def group_of(consumer: object) -> str | None:
    """The consumer's ``group.id``."""
    group = _private(consumer, PRIVATE_ATTRIBUTES[2])
    return group if isinstance(group, str) else None


def _private(consumer: object, name: str) -> object:
    try:
        return getattr(consumer, name)
    except AttributeError:
        if isinstance(consumer, KafkaConsumer) and _throttle.should_log(name):
            logger.warning(
                "This Arroyo's KafkaConsumer has no %s: arroyo_sync goes on without it, and is slower or checks less. "
                "Use a version of sentry-arroyo that it supports",
                name.removeprefix("_KafkaConsumer"),
            )
        return None
