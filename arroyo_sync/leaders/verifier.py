"""Asks the broker whether offsets that leaders published can exist, when nothing else has proven them.

Guarantees
    - A partition is asked about at most once in `INTERVAL_SECONDS`, but at once after it was assigned; all that want to
      be asked about are in one request for each broker, and each broker's answer counts when it comes.
    - While the follower keeps up, nothing is asked: the messages it receives prove what is published.

Threads
    `run` has a thread to itself, which applies the answers. Everything else may be called by any thread and never
    blocks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import KafkaError

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.asker import Asker
from arroyo_sync.leaders.leader_offsets import LeaderOffsets, OffsetBeyondEnd

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
QUERY_TIMEOUT_SECONDS = 1.0


class Verifier:
    """Proves and refutes what is in doubt in a `LeaderOffsets`.

    :param asker: asks the brokers of the data topic's cluster.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        offsets: LeaderOffsets,
        asker: Asker,
        clock: Callable[[], float],
    ) -> None:
        self._offsets = offsets
        self._asker = asker
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self.impossible = 0
        """How many published offsets were refuted. Written by `run`'s thread."""
        self._condition = threading.Condition()
        # Guarded by the condition.
        self._is_woken = False
        self._is_stopped = False
        self._asked_at: dict[PartitionKey, float] = {}
        # Answers that aren't applied yet, each with the epoch before its question.
        self._answers: list[tuple[Mapping[PartitionKey, int], int]] = []

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
        """Let `run` return."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()

    def run(self, periodic_checks: Callable[[], float]) -> None:
        """Until `stop`: ask what is to be asked. Call ``periodic_checks`` when woken, and as often as that says.

        :param periodic_checks: returns in how many seconds it wants to be called again at the latest.
        """
        while not self._is_stopped:
            wait_seconds = min(self.ask(), periodic_checks())
            with self._condition:
                self._condition.wait_for(lambda: self._is_woken or self._is_stopped, wait_seconds)
                self._is_woken = False

    def ask(self) -> float:
        """Apply the answers that have come, and ask about every partition that is due.

        :returns: in how many seconds the next one is due.
        """
        self._apply_answers()
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
            self._asker.ask_end_offsets(due, QUERY_TIMEOUT_SECONDS, lambda answers: self._answer(answers, asked))
            self._apply_answers()
        return min((at - now for at in due_at.values()), default=float("inf"))

    def _answer(self, answers: Mapping[PartitionKey, int | KafkaError], asked: int) -> None:
        """Called by the asker, on any thread."""
        ends = {key: end for key, end in answers.items() if isinstance(end, int)}
        with self._condition:
            self._answers.append((ends, asked))
        self.wake()

    def _apply_answers(self) -> None:
        with self._condition:
            answers, self._answers = self._answers, []
        for ends, asked in answers:
            for rejected in self._offsets.apply_end_offsets(ends, asked):
                self._tell(rejected)

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
