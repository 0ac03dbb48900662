"""Asks the broker whether offsets that leaders published can exist, when nothing else has proven them.

Guarantees
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

from arroyo_sync.leader_offsets import Impossible, LeaderOffsets
from arroyo_sync.rate_limit import OncePer
from arroyo_sync.state import PartitionKey
from arroyo_sync.watermarks import HighWatermarks

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
QUERY_TIMEOUT_SECONDS = 1.0
LOG_INTERVAL_SECONDS = 60.0


class Verifier:
    """Proves and refutes what is in doubt in a `LeaderOffsets`.

    :param own_watermarks: makes a client of one's own, for when the follower's isn't given. Entered and left by `run`.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        offsets: LeaderOffsets,
        own_watermarks: Callable[[], AbstractContextManager[HighWatermarks]],
        clock: Callable[[], float],
    ) -> None:
        self._offsets = offsets
        self._own_watermarks = own_watermarks
        self._clock = clock
        self._once = OncePer(LOG_INTERVAL_SECONDS, clock)
        self._own = ExitStack()
        self._made: HighWatermarks | None = None
        self.impossible = 0
        """How many published offsets were refuted. Written by `run`'s thread."""
        self._condition = threading.Condition()
        # Guarded by the condition.
        self._given: HighWatermarks | None = None
        self._is_woken = False
        self._is_stopped = False
        self._asked_at: dict[PartitionKey, float] = {}

    def assign(self, keys: Collection[PartitionKey], watermarks: HighWatermarks | None) -> None:
        """Trust in these begins anew, checked with these watermarks. Call it before `LeaderOffsets.assign`."""
        with self._condition:
            self._given = watermarks
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

    def prove_from_cache(self) -> None:
        """Prove what the follower's client can prove without asking. Never blocks."""
        watermarks = self._given
        if watermarks is None:
            return
        ends = {key: watermarks.cached(*key) for key in self._offsets.doubts()}
        self._offsets.cached({key: end for key, end in ends.items() if end is not None})

    def run(self, housekeeping: Callable[[], None], interval_seconds: float) -> None:
        """Until `stop`: ask what is to be asked, and call ``housekeeping`` every so often."""
        with self._own:
            while not self._is_stopped:
                wait_seconds = min(self.ask(), interval_seconds)
                housekeeping()
                with self._condition:
                    self._condition.wait_for(lambda: self._is_woken or self._is_stopped, wait_seconds)
                    self._is_woken = False

    def ask(self) -> float:
        """Ask about every partition that is due.

        :returns: in how many seconds the next one is due.
        """
        # The order counts: what is assigned, or given other watermarks, after this isn't judged by this answer.
        asked = self._offsets.number
        doubts = self._offsets.doubts()
        now = self._clock()
        with self._condition:
            watermarks = self._given
            due_at = {key: self._asked_at.get(key, now - INTERVAL_SECONDS) + INTERVAL_SECONDS for key in doubts}
            due = [key for key, at in due_at.items() if at <= now]
            for key in due:
                self._asked_at[key] = now
                due_at[key] = now + INTERVAL_SECONDS
        if due:
            watermarks = watermarks or self._own_ones()
            cached_before = {key: watermarks.cached(*key) for key in due}
            ends = watermarks.query(due, QUERY_TIMEOUT_SECONDS)
            for refuted in self._offsets.judge(ends, asked, cached_before):
                self._tell(refuted)
        return min((at - now for at in due_at.values()), default=float("inf"))

    def _own_ones(self) -> HighWatermarks:
        if self._made is None:
            self._made = self._own.enter_context(self._own_watermarks())
        return self._made

    def _tell(self, refuted: Impossible) -> None:
        self.impossible += 1
        if self._once.is_due((refuted.key, refuted.group)):
            logger.error(
                "%s[%d]: group %r published offset %d, but the partition ends at %d. Was the topic deleted and created "
                "again under an old commit log? The group counts as unknown there until it publishes a possible offset",
                *refuted.key,
                refuted.group,
                refuted.offset,
                refuted.end,
            )
