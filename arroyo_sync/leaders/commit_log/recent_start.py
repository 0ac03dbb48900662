"""A start that reads only the end of the commit log, and takes the leader groups' commits for the rest.

Why this is safe
    The order is: (1) ask where the commit log ends, E, and where the records of the last ``lookback_seconds`` begin, S,
    which is never past E; (2) read from S on, past E; (3) for the groups and assigned partitions of which no record was
    read, ask the brokers for the groups' committed offsets, C, and take them. A record always takes the place of C, and
    where a record was read, C isn't taken.

    - Whatever a leader publishes after (1) lies at or past E, so past S: it is read, and counts. So a leader that goes
      back shuts the gate as soon as its record arrives, just as for a reader that has read all.
    - Where C is taken, the leader had published nothing for ``lookback_seconds`` before (1): it had committed nothing
      new for that long. The broker's copy lags behind by the leader's commit policy, a second or so, and has caught up
      long since. So C is what the leader published last, or what it has committed since and is about to publish. If its
      publishing failed, C is later; but then, too, the leader has done the work below C before it committed it.
    - Timestamps that are wrong only move S. Wherever it lies up to E, the two points above hold.

    They need that C is the leaders' own: read from the cluster where they commit, under the names that they publish.
    Only the user knows that, so the default is to read all. If nothing can be seen of a group, all is read, too.

Threads: for the checking thread, which it blocks for at most `TIMEOUT_SECONDS` a group.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import servers_of
from arroyo_sync.kafka.committed_offsets import CommittedOffsets
from arroyo_sync.kafka.errors import is_fatal
from arroyo_sync.leaders.leader_offsets import LeaderOffsets

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 1.0


class RecentStart:
    """Step (3): fills in the commits of groups of which the end of the commit log says nothing.

    :param topic: the commit log, for log lines.
    :param data_configuration: librdkafka settings of the cluster where the groups commit.
    :param read_all: called if nothing can be seen of a group's commits: the whole commit log is to be read instead.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        topic: str,
        offsets: LeaderOffsets,
        data_configuration: Mapping[str, Any],
        read_all: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._topic = topic
        self._offsets = offsets
        self._data_configuration = data_configuration
        self._read_all = read_all
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._committed = CommittedOffsets(data_configuration, self._on_error)
        self._end: KafkaError | None = None
        self._is_over = False
        # A group is asked once about each partition: what it commits later, it publishes.
        self._asked: set[tuple[str, PartitionKey]] = set()

    def step(self) -> float:
        """Ask what is to be asked.

        :returns: in how many seconds it wants to be called again at the latest.
        :raises KafkaException: an error that can't be ridden out.
        """
        if self._is_over:
            return float("inf")
        again_seconds = float("inf")
        for group in self._offsets.groups:
            partitions = [
                key for key in self._offsets.partitions_without_report(group) if (group, key) not in self._asked
            ]
            if not partitions:
                continue
            try:
                committed = self._committed.ask(group, partitions, TIMEOUT_SECONDS)
            except KafkaException as error:
                self._raise_what_ends(error)
                if self._throttle.should_log(group):
                    logger.warning(
                        "Commit log %s: can't ask what group %r has committed: %s. It is tried again",
                        self._topic,
                        group,
                        error.args[0].str(),
                    )
                again_seconds = RETRY_SECONDS
                continue
            if not committed:
                self._is_over = True
                logger.warning(
                    "Commit log %s is read from its beginning, since group %r has no commits at %s",
                    self._topic,
                    group,
                    servers_of(self._data_configuration),
                )
                self._read_all()
                break
            self._asked.update((group, key) for key in partitions)
            filled = self._offsets.seed_from_committed(
                [(key, group, offset) for key, offset in committed.items()], self._clock()
            )
            logger.info("Commit log %s: took what group %r has committed of %d partitions", self._topic, group, filled)
        return again_seconds

    def close(self) -> None:
        """Close the clients."""
        self._committed.close()

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._end = self._end or error

    def _raise_what_ends(self, error: KafkaException) -> None:
        if self._end is not None:
            raise KafkaException(self._end) from error
        if is_fatal(error.args[0]):
            raise error
