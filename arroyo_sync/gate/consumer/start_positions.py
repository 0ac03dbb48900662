"""Makes the positions durable that an assignment begins at, before anything of them has gone downstream.

Without that, a position that ``auto.offset.reset`` resolved lives in the process's memory alone for as long as the gate
is closed: the next rebalance or restart resolves anew, and what came meanwhile is lost.

Guarantees
    - The positions of newly assigned partitions are committed inside the assignment callback, before the gate exists.
    - Where librdkafka begins elsewhere without a word (a reset without ``arroyo.strict.offset.reset``, a gap), the
      offset of the first message that is held is committed too.
    - Nothing is committed that would pass a message: nothing before these positions comes in this assignment.
    - The positions are remembered for as long as the partitions are assigned.

Threads: the processor's thread calls everything.

Failures
    What a commit raises is logged and tried again; it ends neither the assignment nor the processor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Partition

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka.arroyo_consumer import commit_staged

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""From the end of a commit that failed to the next. One may block for as long as the coordinator is away."""


class StartPositions:
    """Commits where the consumer's partitions begin.

    :param clock: monotonic, in seconds.
    """

    def __init__(self, inner: Consumer[Any], clock: Callable[[], float]) -> None:
        self._inner = inner
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._not_before = clock()
        self._unstaged: dict[Partition, int] = {}  # where staging itself failed, which it can where librdkafka does it
        self.positions: dict[Partition, int] = {}
        """Where each partition that is assigned began."""
        self.is_pending = False
        """Whether something is still to be committed. Read by the consumer's poll when no message came."""

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Stage these positions and commit them. Blocks until the broker has answered."""
        self.positions.update(positions)
        self._not_before = self._clock()  # a new assignment: whatever failed before may go well now
        self.stage(positions)
        self.commit_if_due()

    def stage(self, positions: Mapping[Partition, int]) -> None:
        """Stage these positions with the next `commit_if_due`."""
        self._unstaged.update(positions)
        self.is_pending = True

    def commit_if_due(self) -> None:
        """Commit what is staged if something of it is pending, unless that failed a moment ago."""
        if not self.is_pending or self._clock() < self._not_before:
            return
        try:
            staged = self._unstaged
            if staged:
                self._inner.stage_offsets(staged)
                self._unstaged = {}
            # By name the first time alone: later, more of these partitions may have been committed.
            commit_staged(self._inner, staged)
        except Exception as exc:
            self._failed(exc)
        else:
            self.is_pending = False

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These were revoked: whoever has them now commits."""
        for partition in partitions:
            self.positions.pop(partition, None)
            self._unstaged.pop(partition, None)

    def _failed(self, error: Exception) -> None:
        self._not_before = self._clock() + RETRY_SECONDS
        if self._throttle.should_log("commit"):
            logger.warning(
                "The positions that this assignment begins at could not be committed; it is tried again every %g s. "
                "Until then a restart begins where auto.offset.reset says: %s",
                RETRY_SECONDS,
                error,
            )
