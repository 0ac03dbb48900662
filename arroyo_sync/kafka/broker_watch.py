"""Says once that partitions can't be asked about, and once that they can again.

Pure but for the log: a clock is given. Threads: any may call anything.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import KafkaError

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import TOPIC_IS_GONE, is_fatal_for_reading

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 3.0
"""How long partitions may go without an answer before it is told: a new leader is found within two or so."""

SHOWN_PARTITIONS = 5


class BrokerWatch:
    """Of one cluster.

    :param advice: added to the line about a topic that isn't there.
    :param clock: monotonic seconds.
    """

    def __init__(self, advice: str, clock: Callable[[], float]) -> None:
        self._advice = advice
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._lock = threading.Lock()
        # Guarded by the lock: since when each partition has been without an answer, and of which that was told.
        self._unanswered: dict[PartitionKey, float] = {}
        self._told: set[PartitionKey] = set()

    def update(self, answers: Mapping[PartitionKey, KafkaError | None]) -> None:
        """Take in what one broker's answer was about, with the error of each partition that got none."""
        now = self._clock()
        with self._lock:
            failed = {key: error for key, error in answers.items() if error is not None}
            since = {key: self._unanswered.setdefault(key, now) for key in failed}
            due = [
                key
                for key, error in failed.items()
                if is_fatal_for_reading(error) or now - since[key] >= PATIENCE_SECONDS
            ]
            told = [key for key in answers if key not in failed and key in self._told]
            seconds = max((now - self._unanswered[key] for key in told), default=0.0)
            for key in answers.keys() - failed.keys():
                self._unanswered.pop(key, None)
            self._told.difference_update(told)
            self._told.update(due)
        if due:
            self._log_failure(due, failed[due[0]])
        if told:
            logger.warning("The brokers answer again about %s, after %.0f s", _named(told), seconds)

    def _log_failure(self, keys: Collection[PartitionKey], error: KafkaError) -> None:
        if self._throttle.should_log((error.code(), frozenset(topic for topic, _ in keys))):
            logger.warning(
                "The brokers don't answer about %s, so what was published of them can't be checked: %s. "
                "They are asked again, and other partitions go on%s",
                _named(keys),
                error.str(),
                f". {self._advice}" if self._advice and error.code() in TOPIC_IS_GONE else "",
            )


def _named(keys: Collection[PartitionKey]) -> str:
    shown = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(keys)[:SHOWN_PARTITIONS])
    more = len(keys) - SHOWN_PARTITIONS
    return shown if more <= 0 else f"{shown} and {more} more"
