"""Says once that partitions can't be asked about, and once that they can again.

Pure but for the log: a clock is given. Threads: any may call anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import KafkaError

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import TOPIC_IS_GONE, is_fatal

logger = guarded_logger(__name__)

PATIENCE_SECONDS = 3.0
"""How long partitions may go without an answer before it is told: a new leader is found within two or so."""

SHOWN_PARTITIONS = 5

NOTHING_IS_LEARNT = "so nothing new is learnt of them"
LOOK_UP_FAILS = "where an offset is looked up by time"


class BrokerWatch:
    """Of one cluster.

    :param advice: added to the line about a topic that isn't there.
    :param clock: monotonic seconds.
    :param consequence: what it means that they can't be asked about.
    """

    def __init__(self, advice: str, clock: Callable[[], float], consequence: str = NOTHING_IS_LEARNT) -> None:
        self._advice = advice
        self._consequence = consequence
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._lock = threading.Lock()
        # Guarded by the lock: since when each partition has been without an answer, and of which that was told.
        self._unanswered: dict[PartitionKey, float] = {}
        self._told: set[PartitionKey] = set()

    def update(self, answers: Mapping[PartitionKey, KafkaError | None]) -> None:
        """Take in one broker's answer: its partitions, with the errors of those that can't be told of."""
        now = self._clock()
        with self._lock:
            failed = {key: error for key, error in answers.items() if error is not None}
            for key in failed:
                self._unanswered.setdefault(key, now)
            due = [
                key
                for key, error in failed.items()
                if key not in self._told and (_is_for_good(error) or now - self._unanswered[key] >= PATIENCE_SECONDS)
            ]
            # Partitions that come and go all the time are told of once a minute.
            is_told = bool(due) and self._throttle.should_log(frozenset(due))
            if is_told:
                self._told.update(due)
            answered = answers.keys() - failed.keys()
            told = answered & self._told
            since = min((self._unanswered[key] for key in told), default=now)
            self._told -= told
            for key in answered:
                self._unanswered.pop(key, None)
        if is_told:
            self._log_failure(due, failed[due[0]])
        if told:
            logger.warning("The brokers answer again about %s, after %.0f s", named_partitions(told), now - since)

    def forget(self, keys: Collection[PartitionKey]) -> None:
        """Nobody asks about these any more: that they were without an answer is no news when somebody does again."""
        with self._lock:
            self._told.difference_update(keys)
            for key in keys:
                self._unanswered.pop(key, None)

    def _log_failure(self, keys: Collection[PartitionKey], error: KafkaError) -> None:
        logger.warning(
            "The brokers don't answer about %s, %s: %s. They are asked again, and other partitions go on%s",
            named_partitions(keys),
            self._consequence,
            error.str(),
            f". {self._advice}" if self._advice and error.code() in TOPIC_IS_GONE else "",
        )


def _is_for_good(error: KafkaError) -> bool:
    """Waiting doesn't mend it. All else may be a broker that restarts, whatever librdkafka calls it."""
    return is_fatal(error) or error.code() in TOPIC_IS_GONE


def named_partitions(keys: Collection[PartitionKey]) -> str:
    """Some of them, and how many there are besides."""
    shown = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(keys)[:SHOWN_PARTITIONS])
    more = len(keys) - SHOWN_PARTITIONS
    return shown if more <= 0 else f"{shown} and {more} more"
