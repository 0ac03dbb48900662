"""What a leader's log says of the records that it publishes: that they fail, that they arrive again, who tells nothing.

Guarantees
    - A line of each kind comes once a minute at most; of what wasn't confirmed at an end, of the same offsets.
    - That records arrive again is told once, when all that failed have, and only if it was told that they fail.

Threads: whoever publishes, without a lock. No line can raise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from confluent_kafka import KafkaError

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka.client_settings import ONLY_ERRORS_SETTING
from arroyo_sync.kafka.errors import code_of
from arroyo_sync.leaders.commit_log.publishing.publish_queue import NoAnswer, QueuedPartition

logger = guarded_logger(__name__)

SHOWN_PARTITIONS = 10


class DeliveryLog:
    """See the module's docstring.

    :param topic: the commit log's name.
    :param clock: monotonic seconds.
    """

    def __init__(self, group: str, topic: str, clock: Callable[[], float]) -> None:
        self._group = group
        self._topic = topic
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._is_failure_told = False

    def failed(self, queued: QueuedPartition, error: Exception, failed_deliveries: int) -> None:
        """A record wasn't delivered, or nobody says whether it was."""
        if isinstance(error, NoAnswer):
            if self._throttle.should_log("silence"):
                self._is_failure_told = True
                logger.warning(
                    "%r: the producer hasn't said for %.0f seconds what became of a commit of group %s for %s, and "
                    "followers may wait; the newest offset is published again (%d failed so far). If its brokers are "
                    "well, its own thread has ended, as by what a metrics backend raises in a delivery callback: "
                    "restart this leader. Or its settings have %s: leave that out",
                    queued,
                    error.seconds,
                    self._group,
                    self._topic,
                    failed_deliveries,
                    ONLY_ERRORS_SETTING,
                )
        elif self._throttle.should_log("failure"):
            self._is_failure_told = True
            logger.warning(
                "%r: a commit of group %s could not be published to %s, so followers wait; the newest offset is "
                "published as soon as it can be (%d failed so far): %s: %s%s",
                queued,
                self._group,
                self._topic,
                failed_deliveries,
                type(error).__name__,
                error,
                _advice(error),
            )

    def over(self) -> None:
        """All that failed have arrived."""
        if self._is_failure_told:
            self._is_failure_told = False
            logger.warning("Commits of group %s are published to %s again", self._group, self._topic)

    def unconfirmed(self, partitions: Collection[QueuedPartition]) -> None:
        """Of these the last offset isn't known to have arrived, and nobody waits for it any more."""
        shown = _shown(partitions)
        if self._throttle.should_log(("unconfirmed", shown)):
            logger.warning(
                "The last offsets of group %s were not confirmed by %s before its pipeline ended. Followers may "
                "wait until the next owner of these partitions reports them: %s",
                self._group,
                self._topic,
                shown,
            )

    def untold(self, producer: object) -> None:
        """The producer tells of no record what became of it."""
        logger.warning(
            "The producer of group %s, a %s, doesn't tell what becomes of a record: one that doesn't arrive counts "
            "as delivered, and is only repeated by the next heartbeat. Give the KafkaProducer itself",
            self._group,
            type(producer).__name__,
        )

    def failed_pass(self, error: BaseException) -> None:
        """What the thread that publishes was ended by, and isn't."""
        if self._throttle.should_log("pass"):
            logger.warning(
                "The thread that publishes the commits of group %s to %s failed, and goes on: %s: %s",
                self._group,
                self._topic,
                type(error).__name__,
                error,
                exc_info=error,
            )


def _advice(error: Exception) -> str:
    """What to do, where the broker's words don't say it."""
    if code_of(error) == KafkaError.INVALID_TIMESTAMP:
        return (
            ". The brokers refuse this machine's time: set its clock right, or the topic's message.timestamp.type to "
            "LogAppendTime"
        )
    if code_of(error) == KafkaError._FATAL:
        return (
            ". It never can be: this producer has failed for good, as one with enable.idempotence does that may not "
            "write so. librdkafka has written why to standard error; restart this leader once that is mended"
        )
    return ""


def _shown(partitions: Collection[QueuedPartition]) -> str:
    """Some of them, with their offsets."""
    named = [f"{each!r} offset {each.newest[0]}" for each in partitions if each.newest is not None]
    more = len(named) - SHOWN_PARTITIONS
    return ", ".join(named[:SHOWN_PARTITIONS]) + (f" and {more} more" if more > 0 else "")
