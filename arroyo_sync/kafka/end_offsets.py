"""Where a topic's partitions end: the broker's high watermarks.

Threads
    A confluent-kafka consumer lets in one thread at a time (since 2.16: others wait, and one that polls without end
    may keep them waiting for ever). So a `KafkaWatermarks` is for the thread that polls its consumer, or for a consumer
    that nobody polls. Nothing here is shared between threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import TOPIC_IS_GONE

logger = logging.getLogger(__name__)

LATEST_TIMESTAMP = -1
"""In place of a time in a ListOffsets request: the end (Kafka's protocol guide)."""
EARLIEST_TIMESTAMP = -2
"""The beginning."""

LOG_INTERVAL_SECONDS = 60.0


class KafkaWatermarks:
    """`HighWatermarks` from a consumer's own handle, with no subscription or assignment of their own.

    :param consumer: the handle. It is never closed from here.
    :param advice: added to the log line about a topic that isn't there.
    :param is_polled: whether somebody polls the consumer. If nobody does, each question lets it tell its ``error_cb``
        what went wrong.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        advice: str = "",
        is_polled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._advice = advice
        self._is_polled = is_polled
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._is_closed = False

    def cached(self, topic: str, partition: int) -> int | None:
        """The end offset in the last fetch response, ``None`` before the first one or when closed. Never blocks."""
        if self._is_closed:
            return None
        try:
            ends = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        except (KafkaException, RuntimeError):  # the latter: the client was closed
            return None
        return ends[1] if ends is not None and ends[1] >= 0 else None

    def query(self, partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        """Ask the brokers, in one request for each, for at most ``timeout`` seconds.

        Partitions that couldn't be asked about are missing in the answer and logged, at most once a minute. Empty when
        closed.
        """
        if self._is_closed:
            return {}
        try:
            answers = self._consumer.offsets_for_times(
                [TopicPartition(topic, partition, LATEST_TIMESTAMP) for topic, partition in partitions],
                timeout=timeout,
            )
        except (KafkaException, RuntimeError) as error:
            if self._throttle.should_log("all"):
                self._log_failure(sorted({topic for topic, _ in partitions}), error.args[0])
            if not self._is_polled and isinstance(error, KafkaException):
                self._consumer.poll(0.1)  # there may be several
            return {}
        ends: dict[PartitionKey, int] = {}
        for answer in answers:
            if answer.error is None and answer.offset >= 0:
                ends[answer.topic, answer.partition] = answer.offset
            elif self._throttle.should_log(answer.topic):
                self._log_failure([answer.topic], answer.error)
        return ends

    def close(self) -> None:
        """Leave the client alone from now on: it is about to be closed."""
        self._is_closed = True

    def _log_failure(self, topics: Sequence[str], error: object) -> None:
        is_unknown = isinstance(error, KafkaError) and error.code() in TOPIC_IS_GONE
        logger.warning(
            "Can't ask where the partitions of %s end, so what their leaders published can't be checked: %s%s",
            ", ".join(topics),
            error.str() if isinstance(error, KafkaError) else error,
            f". {self._advice}" if is_unknown and self._advice else "",
        )
