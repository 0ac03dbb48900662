"""Where a topic's partitions end: the broker's high watermarks.

Guarantees
    - No call reaches the client once `KafkaWatermarks.close` has returned, so the client may be closed then: a call
      into a closed handle could crash the process.

Threads
    Any thread may call anything. `KafkaWatermarks.query` blocks, but keeps no other call waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.rate_limit import OncePer
from arroyo_sync.state import PartitionKey

logger = logging.getLogger(__name__)

LATEST_TIMESTAMP = -1
"""In place of a time in a ListOffsets request: the end (Kafka's protocol guide)."""
EARLIEST_TIMESTAMP = -2
"""The beginning."""

LOG_INTERVAL_SECONDS = 60.0


class HighWatermarks(Protocol):
    """The broker's end offsets of the data topic's partitions. Any thread may ask."""

    def cached(self, topic: str, partition: int) -> int | None:
        """The end offset that the client saw last, or ``None``. Never blocks."""
        ...

    def query(self, partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        """Ask the broker, for at most ``timeout`` seconds. Partitions it couldn't tell of are missing in the answer."""
        ...


class KafkaWatermarks:
    """`HighWatermarks` from a consumer's own handle, with no subscription or assignment of their own.

    :param consumer: the handle. It is never closed from here.
    :param advice: added to the log line about a topic that isn't there.
    """

    def __init__(self, consumer: Consumer, *, advice: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._consumer = consumer
        self._advice = advice
        self._once = OncePer(LOG_INTERVAL_SECONDS, clock)
        # Guards the two below. `_calls` is how many calls are inside the client.
        self._condition = threading.Condition()
        self._calls = 0
        self._is_closed = False

    def cached(self, topic: str, partition: int) -> int | None:
        """The end offset in the last fetch response, ``None`` before the first one or when closed. Never blocks."""
        with self._entered() as may_call:
            if not may_call:
                return None
            try:
                ends = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            except (KafkaException, RuntimeError):
                return None
        return ends[1] if ends is not None and ends[1] >= 0 else None

    def query(self, partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        """Ask the brokers, in one request for each, for at most ``timeout`` seconds.

        Partitions that couldn't be asked about are missing in the answer and logged, at most once a minute. Empty when
        closed.
        """
        with self._entered() as may_call:
            if not may_call:
                return {}
            try:
                answers = self._consumer.offsets_for_times(
                    [TopicPartition(topic, partition, LATEST_TIMESTAMP) for topic, partition in partitions],
                    timeout=timeout,
                )
            except (KafkaException, RuntimeError) as error:
                if self._once.is_due("all"):
                    logger.warning("Can't ask the broker where %d partitions end: %s", len(partitions), error)
                return {}
        ends: dict[PartitionKey, int] = {}
        for answer in answers:
            if answer.error is None and answer.offset >= 0:
                ends[answer.topic, answer.partition] = answer.offset
            elif self._once.is_due(answer.topic):
                self._log_failure(answer)
        return ends

    def close(self) -> None:
        """Let nothing more into the client, and wait until the last call (a `query`, with its timeout) has left it."""
        with self._condition:
            self._is_closed = True
            self._condition.wait_for(lambda: self._calls == 0)

    @contextmanager
    def _entered(self) -> Iterator[bool]:
        with self._condition:
            may_call = not self._is_closed
            self._calls += may_call
        try:
            yield may_call
        finally:
            if may_call:
                with self._condition:
                    self._calls -= 1
                    self._condition.notify_all()

    def _log_failure(self, answer: TopicPartition) -> None:
        error = answer.error
        is_unknown = isinstance(error, KafkaError) and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        logger.warning(
            "Can't tell where %s[%d] ends, so what its leaders published can't be checked: %s%s",
            answer.topic,
            answer.partition,
            error,
            f". {self._advice}" if is_unknown and self._advice else "",
        )
