"""Asks the broker whether offsets that leaders published can exist, when nothing else has proven them.

Guarantees
    - Its client is its own: a consumer lets in one thread at a time, and one that polls without end would keep all
      others waiting.
    - A partition is asked about at most once in `INTERVAL_SECONDS`, but at once after it was assigned; all that want to
      be asked about are in one request for each broker.
    - While the follower keeps up, nothing is asked: the messages it receives prove what is published.

Threads
    `run` blocks in the broker's answer, so it has a thread to itself: neither the reading nor the gate waits for it.
    Everything else may be called by any thread and never blocks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack

from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.core.source import HighWatermarks
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.leaders.leader_offsets import LeaderOffsets, OffsetBeyondEnd

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
QUERY_TIMEOUT_SECONDS = 1.0
LOG_INTERVAL_SECONDS = 60.0


class Verifier:
    """Proves and refutes what is in doubt in a `LeaderOffsets`.

    :param watermarks: makes the client. Entered and left by `run`.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        offsets: LeaderOffsets,
        watermarks: Callable[[], AbstractContextManager[HighWatermarks]],
        clock: Callable[[], float],
    ) -> None:
        self._offsets = offsets
        self._make_watermarks = watermarks
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._stack = ExitStack()
        self._watermarks: HighWatermarks | None = None
        self.impossible = 0
        """How many published offsets were refuted. Written by `run`'s thread."""
        self._condition = threading.Condition()
        # Guarded by the condition.
        self._is_woken = False
        self._is_stopped = False
        self._asked_at: dict[PartitionKey, float] = {}

    def assign(self, keys: Collection[PartitionKey]) -> None:
        """These may be asked about at once, since trust in them begins anew."""
        with self._condition:
            for key in keys:
                self._asked_at.pop(key, None)

    def revoke(self, keys: Collection[PartitionKey]) -> None:
        """These aren't asked about any more."""
        with self._condition:
            for key in keys:
                self._asked_at.pop(key, None)

    def wake(self) -> None:
        """Something may be in doubt."""
        with self._condition:
            self._is_woken = True
            self._condition.notify_all()

    def stop(self) -> None:
        """Let `run` return, once the question in flight is answered or has timed out."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()

    def run(self, periodic_checks: Callable[[], float]) -> None:
        """Until `stop`: ask what is to be asked. Call ``periodic_checks`` when woken, and as often as that says.

        :param periodic_checks: returns in how many seconds it wants to be called again at the latest.
        """
        with self._stack:
            while not self._is_stopped:
                wait_seconds = min(self.ask(), periodic_checks())
                with self._condition:
                    self._condition.wait_for(lambda: self._is_woken or self._is_stopped, wait_seconds)
                    self._is_woken = False

    def ask(self) -> float:
        """Ask about every partition that is due.

        :returns: in how many seconds the next one is due.
        """
        # Before all else: what is published or assigned after this isn't judged by this answer.
        asked = self._offsets.epoch
        unverified_partitions = self._offsets.unverified_partitions()
        now = self._clock()
        with self._condition:
            due_at = {
                key: self._asked_at.get(key, now - INTERVAL_SECONDS) + INTERVAL_SECONDS for key in unverified_partitions
            }
            due = [key for key, at in due_at.items() if at <= now]
            for key in due:
                self._asked_at[key] = now
                due_at[key] = now + INTERVAL_SECONDS
        if due:
            if self._watermarks is None:
                self._watermarks = self._stack.enter_context(self._make_watermarks())
            ends = self._watermarks.query(due, QUERY_TIMEOUT_SECONDS)
            for rejected in self._offsets.apply_end_offsets(ends, asked):
                self._tell(rejected)
        return min((at - now for at in due_at.values()), default=float("inf"))

    def _tell(self, rejected: OffsetBeyondEnd) -> None:
        self.impossible += 1
        if self._throttle.should_log((rejected.key, rejected.group)):
            logger.error(
                "%s[%d]: group %r published offset %d, but the partition ends at %d. Was the topic deleted and created "
                "again under an old commit log? The group counts as unknown there until it publishes a possible offset",
                *rejected.key,
                rejected.group,
                rejected.offset,
                rejected.end,
            )
